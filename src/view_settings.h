/*
 * view_settings.h
 *		Settings that change what a query means, pinned with each view.
 */
#ifndef MD_VIEW_SETTINGS_H
#define MD_VIEW_SETTINGS_H

#include "postgres.h"
#include "utils/jsonb.h"

/* This session's values, as {"TimeZone": "UTC", ...}. */
extern Jsonb *md_view_settings_capture(void);

/* Set them as they were captured, until the GUC nest level is left. */
extern void md_view_settings_apply(Jsonb *settings);

#endif							/* MD_VIEW_SETTINGS_H */
