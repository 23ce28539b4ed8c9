/*
 * refresh_top.c
 *		The first rows of a query by an order, and what a change makes of them.
 *
 *		kept	a c d g | k				the first 4 of ORDER BY, and one more
 *		change	+b -d -m +x				m and x sort behind the last that is kept
 *				  |
 *				  v
 *		kept	a b c g | k
 *
 * Rows behind the last one that is kept are not known.  Rows up to it are: they are
 * the kept ones with the change added, so the first rows are among these as long as
 * there are enough of them.  If fewer rows were kept than are needed, then these are
 * all that there are, and nothing is unknown.
 *
 * Of rows that tie with the last one some may be kept and others not.  One that goes
 * is taken to be a kept one: then there are fewer than there might be, but all of them
 * are there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"

#include "refresh_order.h"
#include "refresh_target.h"
#include "refresh_top.h"
#include "sql_run.h"

/* A shift in the making; relations have columns c1, c2, ... */
typedef struct Shift
{
	MdEngine   *engine;
	const MdTop *top;
	const char *kept;			/* SELECT */
	char	   *last;			/* relation of the last kept row, if rows behind it are not known; else NULL */
	char	   *change;			/* relation of what is not behind it */
	char	   *rows;			/* relation of both, added up */
} Shift;

char *
md_top_columns(const MdTop *top, const char *alias)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int n = 1; n <= list_length(top->exprs); n++)
		appendStringInfo(&list, "%s%s%sc%d", n > 1 ? ", " : "", alias ? alias : "", alias ? "." : "", n);
	return list.data;
}

/* "ORDER BY k.c1 USING <, ..." */
static char *
order_by(const MdTop *top, const char *alias)
{
	return psprintf("ORDER BY %s", md_order_by(top->order, md_order_names(list_length(top->exprs), alias, 'c')));
}

static char *
comes_before(const MdTop *top, const char *a, const char *b)
{
	return md_order_before(top->order, md_order_names(list_length(top->exprs), a, 'c'),
						   md_order_names(list_length(top->exprs), b, 'c'));
}

static char *
limit_text(const MdTop *top, int64 count)
{
	return psprintf(top->with_ties ? "FETCH FIRST " INT64_FORMAT " ROWS WITH TIES" : "LIMIT " INT64_FORMAT, count);
}

char *
md_top_shown_text(const MdTop *top, const char *relation)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, top->shown)
		appendStringInfo(&list, "%sk.c%d", list.len > 0 ? ", " : "", lfirst_int(lc));
	return psprintf("SELECT %s FROM %s k %s OFFSET " INT64_FORMAT " %s", list.data, relation,
					order_by(top, "k"), top->skip, limit_text(top, top->count));
}

/* May the column come out otherwise when it is computed again? */
static bool
is_inexact(const MdTop *top, int number)
{
	Oid			type = exprType(list_nth(top->exprs, number - 1));

	return top->is_inexact && (type == FLOAT4OID || type == FLOAT8OID || type == NUMERICOID);
}

/* ---------------------------------------------------------------------- */

/* The last kept row, unless what is kept is all that there is. */
static void
find_last(Shift *shift)
{
	const MdTop *top = shift->top;

	if (md_engine_materialize(shift->engine,
							  psprintf("SELECT %s FROM (SELECT k.*, pg_catalog.row_number() OVER (%s) AS place,"
									   " pg_catalog.count(*) OVER () AS total FROM (%s) k(%s)) k"
									   " WHERE k.place OPERATOR(pg_catalog.=) k.total AND k.total OPERATOR(pg_catalog.>=) "
									   INT64_FORMAT,
									   md_top_columns(top, "k"), order_by(top, "k"), shift->kept, md_top_columns(top, NULL),
									   md_top_needed(top)),
							  &shift->last, NULL) == 0)
		shift->last = NULL;
}

/* What may be among the first rows; false if there is nothing. */
static bool
find_change(Shift *shift, MdChange *change, bool back)
{
	const MdTop *top = shift->top;
	char	   *where = "";

	if (shift->last != NULL)
		/* what is inexact may have had another place: see has_near() */
		where = psprintf(" WHERE %sNOT EXISTS (SELECT FROM %s l WHERE %s)",
						 top->is_inexact ? "n." MD_WEIGHT " OPERATOR(pg_catalog.<) 0 OR " : "",
						 shift->last, comes_before(top, "l", "n"));
	return md_engine_materialize(shift->engine,
								 psprintf("SELECT %s, n." MD_WEIGHT " FROM (SELECT %s, %s%s AS " MD_WEIGHT
										  " FROM (%s) n(%s%s)) n%s",
										  md_top_columns(top, "n"), md_top_columns(top, "n"), back ? "- " : "",
										  change->is_signed ? "n." MD_WEIGHT : "1",
										  md_delta_text(change->query), md_top_columns(top, NULL),
										  change->is_signed ? ", " MD_WEIGHT : "", where),
								 &shift->change, NULL) > 0;
}

/* Add it to what is kept. */
static void
add_up(Shift *shift, bool same)
{
	const MdTop *top = shift->top;

	(void) md_engine_materialize(shift->engine,
								 md_delta_net_rows(top->exprs,
												   psprintf("SELECT k.*, 1 FROM (%s) k UNION ALL SELECT n.* FROM %s n",
															shift->kept, shift->change), same),
								 &shift->rows, NULL);
}

/*
 * Has a row gone that is a kept one but for what is inexact?  It is the same one: its
 * sum was made in another order.
 */
static bool
has_near(Shift *shift)
{
	const MdTop *top = shift->top;
	StringInfoData went;
	StringInfoData kept;

	initStringInfo(&went);
	initStringInfo(&kept);
	for (int n = 1; n <= list_length(top->exprs); n++)
	{
		const char *cast = md_target_is_comparable(exprType(list_nth(top->exprs, n - 1))) ? "" : "::pg_catalog.text";

		if (is_inexact(top, n))
			continue;
		appendStringInfo(&went, ", g.c%d%s", n, cast);
		appendStringInfo(&kept, ", k.c%d%s", n, cast);
	}
	return md_sql_run(psprintf("SELECT FROM %s g, (%s) k WHERE g." MD_WEIGHT " OPERATOR(pg_catalog.<) 0"
							   " AND ROW(1%s)::pg_catalog.record = ROW(1%s)::pg_catalog.record LIMIT 1",
							   shift->rows, shift->kept, went.data, kept.data),
					  NULL, shift->engine->snapshot) > 0;
}

/* Are all rows there that should be, and are they enough? */
static MdTopShift
judge(Shift *shift)
{
	const MdTop *top = shift->top;
	char	   *gone = "true";
	char	   *from = psprintf("%s n", shift->rows);

	/* what goes behind the last one was never kept */
	if (shift->last != NULL)
	{
		gone = comes_before(top, "n", "l");
		from = psprintf("%s n, %s l", shift->rows, shift->last);
	}
	md_sql_run(psprintf("SELECT COALESCE(pg_catalog.sum(n." MD_WEIGHT ") FILTER (WHERE n." MD_WEIGHT
						" OPERATOR(pg_catalog.>) 0), 0)::pg_catalog.int8,"
						" pg_catalog.count(*) FILTER (WHERE n." MD_WEIGHT " OPERATOR(pg_catalog.<) 0 AND (%s)) FROM %s",
						gone, from), NULL, shift->engine->snapshot);
	if (md_sql_int64(0, 2) > 0)
		return MD_TOP_LOST;
	if (shift->last != NULL && md_sql_int64(0, 1) < md_top_needed(top))
		return MD_TOP_SHORT;
	if (top->is_inexact && has_near(shift))
		return MD_TOP_LOST;
	return MD_TOP_SHIFTED;
}

MdTopShift
md_top_shift(MdEngine *engine, const MdTop *top, const char *kept, MdChange *change,
			 bool back, bool same, char **name)
{
	Shift		shift = {.engine = engine, .top = top, .kept = kept};
	MdTopShift	answer;

	find_last(&shift);
	if (!find_change(&shift, change, back))
		return MD_TOP_SAME;
	add_up(&shift, same);
	answer = judge(&shift);
	if (answer == MD_TOP_SHIFTED)
		(void) md_engine_materialize(engine,
									 psprintf("SELECT %s FROM %s n, LATERAL medallion.copies(n." MD_WEIGHT ") s"
											  " WHERE n." MD_WEIGHT " OPERATOR(pg_catalog.>) 0 %s %s",
											  md_top_columns(top, "n"), shift.rows, order_by(top, "n"),
											  limit_text(top, md_top_kept(top))),
									 name, NULL);
	return answer;
}
