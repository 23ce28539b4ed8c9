/*
 * refresh_analyze.h
 *		Statistics of what refreshes write.
 */
#ifndef MD_REFRESH_ANALYZE_H
#define MD_REFRESH_ANALYZE_H

#include "postgres.h"

#include "view_state.h"

/*
 * ANALYZE the result and the state tables of a view, those that need it.  The
 * caller has become their owner, and is connected to SPI.
 */
extern void md_analyze_view(const MdView *view, MdSteps *steps);

#endif							/* MD_REFRESH_ANALYZE_H */
