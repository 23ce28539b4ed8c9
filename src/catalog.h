/*
 * catalog.h
 *		The tables of schema medallion as C structures: one place that knows
 *		their columns.
 *
 * All functions need a transaction; those that say SPI connect and finish by
 * themselves, run as the owner of the extension, and leave the caller's
 * memory context alone: results are allocated in the context given or the
 * current one.
 */
#ifndef MD_CATALOG_H
#define MD_CATALOG_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef enum MdFormat
{
	MD_FORMAT_RAW,
	MD_FORMAT_TEXT,
	MD_FORMAT_JSON
} MdFormat;

/* A column that is filled from a field of another name (it was renamed). */
typedef struct MdColumnSource
{
	char	   *column_name;
	char	   *source_name;
} MdColumnSource;

/* One streaming table: medallion.stream with its options taken apart. */
typedef struct MdStream
{
	Oid			relid;
	char	   *server;
	char	   *topic;			/* or a pattern of topics: see md_stream_is_pattern() */
	bool		by_pattern;		/* topic is one of those that match the table's pattern */
	MdFormat	format;
	char	   *start_at;
	bool		initialized;
	bool		paused;
	bool		foreign_origin; /* defined in another database, or a clone */
	int64		generation;
	/* options */
	int			flush_interval_ms;
	int			batch_max_records;
	int64		batch_max_bytes;
	bool		on_error_fail;	/* else: dead letter */
	bool		on_gap_fail;	/* else: record */
	bool		read_uncommitted;
	char	   *group_id;		/* NULL: do not mirror progress */
	double		max_dead_letter_ratio;	/* -1: any */
	int			dead_letter_window_ms;
	List	   *column_sources; /* of MdColumnSource */
	bool		alone;			/* in a worker: it shares no lane */
} MdStream;

/* Is it the definition for all topics that match a pattern, which no topic's name is? */
static inline bool
md_stream_is_pattern(const MdStream *stream)
{
	return stream->topic[0] == '^';
}

/* Owner of the extension, InvalidOid if it does not exist here. */
extern Oid	md_catalog_extension_owner(void);

/* Is relid the key of a row of medallion.<table>, whose primary key is index? */
extern bool md_catalog_has_row(const char *table, const char *index, Oid relid);

/* Is the extension created in this database, and complete? */
extern bool md_catalog_extension_exists(void);

/*
 * Run fn as the owner of the extension with a fixed search_path; used for all
 * writes to our own tables, whoever the caller is.
 */
typedef struct MdSecurity
{
	Oid			user_id;
	int			sec_context;
	int			guc_nest_level;
} MdSecurity;

extern void md_catalog_become_owner(MdSecurity *saved);
extern void md_catalog_become(Oid user_id, MdSecurity *saved);
extern void md_catalog_restore_user(const MdSecurity *saved);

/* "system identifier/database oid" of this database, palloc'd. */
extern char *md_catalog_identity(void);

/*
 * Streams.  md_catalog_stream returns NULL for a relation that is none;
 * md_catalog_streams lists all of the database.
 */
extern MdStream *md_catalog_stream(Oid relid, MemoryContext context);
extern List *md_catalog_streams(MemoryContext context);

/* The definition of a stream changed: no batch made with the old one is stored. */
extern void md_catalog_bump_generation(Oid relid);

/* Rows may change, or have changed, unseen: views over it refresh in full. */
extern void md_catalog_history_changed(Oid relid);

/* Name of a format, and back; -1 for a name that is none. */
extern const char *md_format_name(MdFormat format);
extern int	md_format_by_name(const char *name);

#endif							/* MD_CATALOG_H */
