/*
 * nearest_name.h
 *		The valid name that somebody who misspelt one most likely meant.
 */
#ifndef MD_NEAREST_NAME_H
#define MD_NEAREST_NAME_H

#include "postgres.h"

/*
 * The entry of valid (ended by NULL) that is nearest to name, or NULL when none
 * is near enough to be worth a hint.
 */
extern const char *md_nearest_name(const char *name, const char *const *valid);

#endif							/* MD_NEAREST_NAME_H */
