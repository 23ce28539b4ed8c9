/*
 * view_error_options.c
 *		Options of a view about rows that cannot be computed.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "nearest_name.h"
#include "view_error_options.h"

static const char *const on_error_names[] = {"fail", "quarantine", NULL};

static bool
on_error_is_fail(const char *value)
{
	const char *nearest;

	if (strcmp(value, "fail") == 0)
		return true;
	if (strcmp(value, "quarantine") == 0)
		return false;
	nearest = md_nearest_name(value, on_error_names);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value \"%s\" of option \"%s\"", value, "on_error"),
			 errdetail("Valid values are \"fail\" and \"quarantine\"."),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
}

static int
max_errors(const char *value)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || number < 1 || number > 100000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value \"%s\" of option \"%s\"", value, "max_refresh_errors"),
				 errdetail("It must be an integer from 1 to 100000.")));
	return (int) number;
}

bool
md_error_options_take(MdErrorOptions *options, const char *name, const char *value, bool *twice)
{
	if (strcmp(name, "on_error") == 0)
	{
		*twice = options->set_on_error;
		options->set_on_error = true;
		options->on_error_fail = value != NULL && on_error_is_fail(value);
		return true;
	}
	if (strcmp(name, "max_refresh_errors") == 0)
	{
		*twice = options->set_max;
		options->set_max = true;
		options->max_refresh_errors = value ? max_errors(value) : MD_MAX_REFRESH_ERRORS_DEFAULT;
		return true;
	}
	return false;
}

void
md_error_options_apply(const MdErrorOptions *options, MdView *view)
{
	if (options->set_on_error)
		view->on_error_fail = options->on_error_fail;
	if (options->set_max)
		view->max_refresh_errors = options->max_refresh_errors;
}
