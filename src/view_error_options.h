/*
 * view_error_options.h
 *		Options of a view about rows that cannot be computed.
 */
#ifndef MD_VIEW_ERROR_OPTIONS_H
#define MD_VIEW_ERROR_OPTIONS_H

#include "view_catalog.h"

/* What is given of them. */
typedef struct MdErrorOptions
{
	bool		set_on_error;
	bool		on_error_fail;
	bool		set_max;
	int			max_refresh_errors;
} MdErrorOptions;

/*
 * Take in an option by its name; false if it is none of these.  *twice: it had
 * been given already.  A value of NULL is the default.  ERROR for a value that is
 * none.
 */
extern bool md_error_options_take(MdErrorOptions *options, const char *name, const char *value,
								  bool *twice);

/* Put what is given into a view. */
extern void md_error_options_apply(const MdErrorOptions *options, MdView *view);

#endif							/* MD_VIEW_ERROR_OPTIONS_H */
