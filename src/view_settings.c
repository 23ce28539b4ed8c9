/*
 * view_settings.c
 *		Settings that change what a query means, pinned with each view.
 *
 * Functions such as date_trunc() of a timestamptz are STABLE because they
 * depend on these settings.  With the settings held fixed they are as good as
 * immutable, and a view may be refreshed piece by piece.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "view_settings.h"

static const char *const pinned_names[] = {
	"DateStyle",
	"IntervalStyle",
	"TimeZone",
	"array_nulls",
	"bytea_output",
	"default_text_search_config",
	"extra_float_digits",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"timezone_abbreviations",
	"xmlbinary",
	"xmloption",
};

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *string)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	(void) pushJsonbValue(state, token, &value);
}

Jsonb *
md_view_settings_capture(void)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < lengthof(pinned_names); i++)
	{
		push_string(&state, WJB_KEY, pinned_names[i]);
		push_string(&state, WJB_VALUE,
					GetConfigOption(pinned_names[i], false, false));
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

void
md_view_settings_apply(Jsonb *settings)
{
	for (int i = 0; i < lengthof(pinned_names); i++)
	{
		JsonbValue	value;
		char	   *string;

		/* a view of an older version of the extension may lack one */
		if (getKeyJsonValueFromContainer(&settings->root, pinned_names[i],
										 strlen(pinned_names[i]), &value) == NULL)
			continue;
		string = pnstrdup(value.val.string.val, value.val.string.len);
		(void) set_config_option(pinned_names[i], string, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		pfree(string);
	}
}
