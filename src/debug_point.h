/*
 * debug_point.h
 *		Named places at which a test can stop or kill a process, or have it fail.
 *
 * A process that reaches MD_DEBUG_POINT("name") while the setting
 * medallion.debug_points lists that name waits on a session advisory lock
 * (classid MD_DEBUG_POINT_CLASS, objid hash of the name).  A test takes the
 * lock first, lets the process run into the point, does its mischief (kill,
 * DDL, a second writer), and releases the lock.  An advisory lock works on
 * every major version, and pg_locks shows who waits where.
 *
 * The setting also takes "name!": the process then ends itself with SIGKILL
 * when it reaches the point, which is how crash tests hit an exact place; and
 * "name=SQLSTATE": it fails there with that error.
 */
#ifndef MD_DEBUG_POINT_H
#define MD_DEBUG_POINT_H

#define MD_DEBUG_POINT_CLASS 1296319556	/* "MDPD" */

/* settings.c owns the variable; empty costs one test of a byte. */
extern char *md_debug_points;

extern void md_debug_point_reach(const char *name);

#define MD_DEBUG_POINT(name) \
	do { \
		if (md_debug_points != NULL && md_debug_points[0] != '\0') \
			md_debug_point_reach(name); \
	} while (0)

#endif							/* MD_DEBUG_POINT_H */
