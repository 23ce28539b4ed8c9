/*
 * nearest_name.c
 *		The valid name that somebody who misspelt one most likely meant.
 */
#include "postgres.h"

#include "utils/varlena.h"

#include "nearest_name.h"

/* Names longer than this are not misspelt, and cost quadratic time. */
#define MAX_NAME_BYTES 100

/* As core does for columns: at most three edits, and at most half the name. */
#define MAX_EDITS 3

const char *
md_nearest_name(const char *name, const char *const *valid)
{
	int			len = strlen(name);
	int			best_edits = Min(MAX_EDITS, len / 2) + 1;
	const char *best = NULL;

	if (len == 0 || len > MAX_NAME_BYTES)
		return NULL;
	for (; *valid != NULL; valid++)
	{
		int			valid_len = strlen(*valid);
		int			edits;

		if (pg_strcasecmp(name, *valid) == 0)
			return *valid;
		/* one name that begins with the other: "interval" for "interval_ms" */
		if (len >= 4 && strncmp(name, *valid, Min(len, valid_len)) == 0 && best == NULL)
			best = *valid;
		if (valid_len > MAX_NAME_BYTES)
			continue;
		edits = varstr_levenshtein_less_equal(name, len, *valid, valid_len,
											  1, 1, 1, best_edits, true);
		if (edits < best_edits)
		{
			best_edits = edits;
			best = *valid;
		}
	}
	return best;
}
