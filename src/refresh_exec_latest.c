/*
 * refresh_exec_latest.c
 *		The first row of each key, kept first.
 *
 * New rows are reduced to the first of each key, and meet the row that is kept for
 * it at the cost of an index lookup:
 *
 *		new rows --DISTINCT ON--> first ones --if they come before the kept one--> result
 *
 * Columns of ORDER BY that the result does not show are kept in a table beside it, by
 * key.  When rows left, keys whose kept row was among them are read again:
 *
 *		rows that left --equal the kept one--> touched keys --first row of each--> result
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/guc.h"

#include "guard.h"
#include "refresh_delta.h"
#include "refresh_exec.h"
#include "refresh_exec_merge.h"
#include "refresh_order.h"
#include "refresh_state.h"
#include "refresh_upsert.h"
#include "sql_run.h"

#define ROWS "medallion_rows"
#define FIRST "medallion_first"
#define WINNERS "medallion_winners"
#define GONE "medallion_gone"

/* ----------------------------------------------------------------------
 * SQL
 * ---------------------------------------------------------------------- */

/* "i.c1, i.c2" of numbers; prefix c or i. */
static char *
numbered(List *numbers, const char *alias, char prefix)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, numbers)
		appendStringInfo(&list, "%s%s.%c%d", list.len > 0 ? ", " : "", alias, prefix, lfirst_int(lc));
	return list.data;
}

/* 1 to n */
static List *
numbers_to(int from, int to)
{
	List	   *numbers = NIL;

	for (int n = from; n <= to; n++)
		numbers = lappend_int(numbers, n);
	return numbers;
}

static bool
has_hidden(const MdLatest *latest)
{
	return list_length(latest->inputs) > latest->result_count;
}

/* Numbers of the inputs that the order table has: keys, then what is hidden. */
static List *
order_table_inputs(const MdLatest *latest)
{
	return list_concat(list_copy(latest->keys),
					   numbers_to(latest->result_count + 1, list_length(latest->inputs)));
}

/* SELECT of the first row per key, as c1, c2, ..., from rows with columns i1, i2, ... */
static char *
first_rows(const MdLatest *latest, const char *rows, const char *where)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT DISTINCT ON (%s) ", numbered(latest->keys, "i", 'i'));
	for (int n = 1; n <= list_length(latest->inputs); n++)
		appendStringInfo(&sql, "%si.i%d AS c%d", n > 1 ? ", " : "", n, n);
	appendStringInfo(&sql, " FROM %s i%s ORDER BY %s", rows, where, numbered(latest->keys, "i", 'i'));
	if (latest->order != NIL)
		appendStringInfo(&sql, ", %s", md_order_by(latest->order,
												   md_order_names(list_length(latest->inputs), "i", 'i')));
	return sql.data;
}

/* Names by input number: columns of the result after an alias, hidden ones after another. */
static char **
column_names(const MdLatest *latest, const MdTarget *result, const char *alias,
			 const MdTarget *state, const char *state_alias)
{
	char	  **names = palloc(sizeof(char *) * list_length(latest->inputs));
	int			key_count = list_length(latest->keys);

	for (int n = 0; n < list_length(latest->inputs); n++)
		names[n] = n < latest->result_count ?
			psprintf("%s.%s", alias, result->columns[n].name) :
			psprintf("%s.%s", state_alias, state->columns[key_count + n - latest->result_count].name);
	return names;
}

/* Bare names of the keys, with prefix c or i. */
static const char **
key_names(const MdLatest *latest, char prefix)
{
	const char **names = palloc(sizeof(char *) * list_length(latest->keys));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, latest->keys)
		names[count++] = psprintf("%c%d", prefix, lfirst_int(lc));
	return names;
}

/* "a = excluded.a, ..." of columns that are no keys; NULL if there are none. */
static char *
assignments(const MdTarget *target, List *keys)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, md_target_others(target, keys))
	{
		const char *name = target->columns[lfirst_int(lc) - 1].name;

		appendStringInfo(&list, "%s%s = excluded.%s", list.len > 0 ? ", " : "", name, name);
	}
	return list.len > 0 ? list.data : NULL;
}

/* Only rows in which a column that is no key changes. */
static char *
if_changed(const MdTarget *target, List *keys)
{
	List	   *others = md_target_others(target, keys);

	return psprintf("ROW(%s) IS DISTINCT FROM ROW(%s)", md_target_comparable(target, "t", others),
					md_target_comparable(target, "excluded", others));
}

static MdTarget *
order_table(MdRefresh *refresh)
{
	return has_hidden(refresh->plan->latest) ? md_state_target(refresh->view) : NULL;
}

/* ----------------------------------------------------------------------
 * Statements
 * ---------------------------------------------------------------------- */

/* All in one: the result itself tells which row comes first. */
static void
upsert_first(MdRefresh *refresh, const char *rows)
{
	MdLatest   *latest = refresh->plan->latest;
	MdTarget   *result = refresh->result;
	MdUpsert	upsert = {.target = result, .keys = latest->keys, .order = latest->order};

	upsert.rows = first_rows(latest, rows, "");
	upsert.all_rows = psprintf("SELECT %s FROM %s i",
							   numbered(numbers_to(1, latest->result_count), "i", 'i'), rows);
	upsert.set = assignments(result, latest->keys);
	upsert.where = md_order_before(latest->order, column_names(latest, result, "excluded", NULL, NULL),
								   column_names(latest, result, "t", NULL, NULL));
	md_upsert_run(&upsert, refresh->snapshot, &refresh->run);
}

/* Rows `winners` (SELECT of c1, c2, ...) take the place of those that are kept. */
static void
replace_rows(MdRefresh *refresh, const char *winners)
{
	MdLatest   *latest = refresh->plan->latest;
	MdTarget   *state = order_table(refresh);
	MdUpsert	upsert = {.target = refresh->result, .keys = latest->keys};
	MdRun		state_run = {0};
	MdStepKind	step;

	upsert.rows = psprintf("SELECT %s FROM (%s) w", numbered(numbers_to(1, latest->result_count), "w", 'c'),
						   winners);
	upsert.set = assignments(refresh->result, latest->keys);
	if (upsert.set != NULL)
		upsert.where = if_changed(refresh->result, latest->keys);
	md_upsert_run(&upsert, refresh->snapshot, &refresh->run);
	if (state == NULL)
		return;
	upsert.target = state;
	upsert.keys = numbers_to(1, list_length(latest->keys));
	upsert.rows = psprintf("SELECT %s FROM (%s) w", numbered(order_table_inputs(latest), "w", 'c'), winners);
	upsert.set = assignments(state, upsert.keys);
	upsert.where = if_changed(state, upsert.keys);
	step = md_step(&refresh->run.steps, MD_STEP_STATE);
	md_upsert_run(&upsert, refresh->snapshot, &state_run);
	md_step_rows(&refresh->run.steps, MD_STEP_STATE, state_run.rows_inserted + state_run.rows_updated);
	(void) md_step(&refresh->run.steps, step);
}

/*
 * SELECT of those FIRST rows n that come before the row that is kept, or have none.
 * `condition` on n or "true".
 */
static char *
winners_sql(MdRefresh *refresh, bool null_keys, const char *condition)
{
	MdLatest   *latest = refresh->plan->latest;
	MdTarget   *result = refresh->result;
	MdTarget   *state = order_table(refresh);
	const char **names = key_names(latest, 'c');
	StringInfoData any_null;
	char	   *state_join = "";

	initStringInfo(&any_null);
	for (int k = 0; k < list_length(latest->keys); k++)
		appendStringInfo(&any_null, "%sf.%s IS NULL", k > 0 ? " OR " : "", names[k]);
	if (state != NULL)
		state_join = psprintf(" LEFT JOIN %s s ON %s", state->name,
							  md_upsert_match(state, numbers_to(1, list_length(latest->keys)), "s", "n",
											  names, null_keys));
	return psprintf("SELECT n.* FROM (SELECT * FROM " FIRST " f WHERE %s(%s)) n LEFT JOIN %s t ON %s%s"
					" WHERE (%s) AND (t.ctid IS NULL OR %s)",
					null_keys ? "" : "NOT ", any_null.data, result->name,
					md_upsert_match(result, latest->keys, "t", "n", names, null_keys), state_join,
					condition,
					md_order_before(latest->order, md_order_names(list_length(latest->inputs), "n", 'c'),
									column_names(latest, result, "t", state, "s")));
}

/* Run a SELECT that joins a change with big tables by their index. */
static void
read_by_index(MdNamedStore *named, const char *name, const char *sql, Snapshot snapshot)
{
	int			nest_level = NewGUCNestLevel();

	(void) set_config_option("enable_hashjoin", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("enable_mergejoin", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	md_relation_read(named, name, sql, snapshot);
	AtEOXact_GUC(true, nest_level);
}

/* Put the FIRST rows where they come before the kept ones. */
static void
apply_winners(MdRefresh *refresh, const char *condition)
{
	MdLatest   *latest = refresh->plan->latest;
	MdNamedStore winners;

	read_by_index(&winners, WINNERS, winners_sql(refresh, false, condition), refresh->snapshot);
	replace_rows(refresh, "SELECT * FROM " WINNERS);
	md_relation_forget(&winners);
	if (!md_upsert_has_null(FIRST, key_names(latest, 'c'), list_length(latest->keys), refresh->snapshot))
		return;
	md_relation_read(&winners, WINNERS, winners_sql(refresh, true, condition), refresh->snapshot);
	replace_rows(refresh, "SELECT * FROM " WINNERS);
	md_relation_forget(&winners);
}

/* ----------------------------------------------------------------------
 * Doors
 * ---------------------------------------------------------------------- */

/* Keys whose kept row was among the rows that left; NULL if there are none. */
static MdKeys *
touched_keys(MdRefresh *refresh)
{
	MdLatest   *latest = refresh->plan->latest;
	MdTarget   *result = refresh->result;
	const char **names = key_names(latest, 'i');
	StringInfoData same;
	StringInfoData sql;

	/* the same in all columns of the result, as far as they compare */
	initStringInfo(&same);
	for (int n = 0; n < latest->result_count; n++)
		if (result->columns[n].comparable)
			appendStringInfo(&same, "%st.%s", same.len > 0 ? ", " : "", result->columns[n].name);
	appendStringInfoString(&same, ")::pg_catalog.record = ROW(");
	for (int n = 0, count = 0; n < latest->result_count; n++)
		if (result->columns[n].comparable)
			appendStringInfo(&same, "%si.i%d", count++ > 0 ? ", " : "", n + 1);
	initStringInfo(&sql);
	for (int null_keys = 0; null_keys <= 1; null_keys++)
		if (!null_keys || md_upsert_has_null(ROWS, names, list_length(latest->keys), refresh->snapshot))
			appendStringInfo(&sql, "%sSELECT %s FROM " ROWS " i JOIN %s t ON %s WHERE i." MD_WEIGHT " < 0 AND ROW(%s)",
							 null_keys ? " UNION ALL " : "", numbered(latest->keys, "i", 'i'), result->name,
							 md_upsert_match(result, latest->keys, "t", "i", names, null_keys), same.data);
	return md_merge_touched(refresh, sql.data);
}

/* "ROW(n.c1)::record = ROW(r.k1)::record": a row of c1, c2, ... has the key r. */
static char *
has_key(const MdLatest *latest, const char *row)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int key = 1; key <= list_length(latest->keys); key++)
		appendStringInfo(&list, "%sr.k%d", key > 1 ? ", " : "", key);
	return psprintf("ROW(%s)::pg_catalog.record = ROW(%s)::pg_catalog.record", row, list.data);
}

/* Delete the rows of the keys in GONE. */
static int64
delete_keys(const MdTarget *target, List *keys, Snapshot snapshot)
{
	const char **names = palloc(sizeof(char *) * list_length(keys));
	int64		deleted = 0;

	for (int key = 0; key < list_length(keys); key++)
		names[key] = psprintf("k%d", key + 1);
	for (int null_keys = 0; null_keys <= 1; null_keys++)
		if (!null_keys || md_upsert_has_null(GONE, names, list_length(keys), snapshot))
			deleted += md_sql_run(psprintf("DELETE FROM %s t USING " GONE " r WHERE %s", target->name,
										   md_upsert_match(target, keys, "t", "r", names, null_keys)),
								  NULL, snapshot);
	return deleted;
}

/* The first rows of touched keys as they are now, in the place of what is kept. */
static void
recompute(MdRefresh *refresh, Query *input, MdKeys *touched)
{
	MdLatest   *latest = refresh->plan->latest;
	MdTarget   *state = order_table(refresh);
	MdPartialSource source = {.rows = md_merge_restricted(refresh, input, latest->keys, touched)};
	char	   *rows = psprintf("(%s)", md_partial_rows_text(latest->inputs, &source));
	MdNamedStore winners;
	MdNamedStore gone;
	MdStepKind	step;
	Oid			guarded;

	md_relation_read(&winners, WINNERS, first_rows(latest, rows, ""), refresh->snapshot);
	replace_rows(refresh, "SELECT * FROM " WINNERS);
	md_relation_read(&gone, GONE, psprintf("SELECT * FROM %s r WHERE NOT EXISTS (SELECT FROM " WINNERS " w WHERE %s)",
										   touched->name, has_key(latest, numbered(latest->keys, "w", 'c'))),
					 refresh->snapshot);
	step = md_step(&refresh->run.steps, MD_STEP_APPLY);
	guarded = md_guard_open(refresh->result->relid);
	refresh->run.rows_deleted += delete_keys(refresh->result, latest->keys, refresh->snapshot);
	if (state != NULL)
		(void) delete_keys(state, numbers_to(1, list_length(latest->keys)), refresh->snapshot);
	md_guard_open(guarded);
	(void) md_step(&refresh->run.steps, step);
	md_relation_forget(&gone);
	md_relation_forget(&winners);
}

/* The rows, with weights added up. */
static char *
net_rows(const MdLatest *latest, const MdPartialSource *source)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int n = 1; n <= list_length(latest->inputs); n++)
		appendStringInfo(&names, "i%d, ", n);
	return psprintf("SELECT * FROM (%s) n(%s" MD_WEIGHT ")", md_delta_net_text(source->rows, true, false), names.data);
}

/* Rows came and left. */
static void
apply_signed(MdRefresh *refresh, Query *input, const MdPartialSource *source)
{
	MdLatest   *latest = refresh->plan->latest;
	MdNamedStore rows;
	MdNamedStore first;
	MdKeys	   *touched;
	char	   *condition = "true";

	/* a row that came and left again must not be taken for the first */
	md_relation_read(&rows, ROWS, net_rows(latest, source), refresh->snapshot);
	touched = touched_keys(refresh);
	if (touched != NULL)
		condition = psprintf("NOT EXISTS (SELECT FROM %s r WHERE %s)", touched->name,
							 has_key(latest, numbered(latest->keys, "n", 'c')));
	md_relation_read(&first, FIRST, first_rows(latest, ROWS, " WHERE i." MD_WEIGHT " > 0"),
					 refresh->snapshot);
	apply_winners(refresh, condition);
	md_relation_forget(&first);
	if (touched != NULL)
		recompute(refresh, input, touched);
	md_relation_forget(&rows);
}

void
md_latest_apply(MdRefresh *refresh)
{
	MdLatest   *latest = refresh->plan->latest;
	Query	   *input = md_partial_linear(refresh->plan->query, latest->inputs);
	MdPartialSource source = {0};
	MdNamedStore first;
	char	   *rows;

	if (!md_merge_change(refresh, input, latest->is_signed, &source))
		return;
	if (source.is_signed)
	{
		apply_signed(refresh, input, &source);
		return;
	}
	rows = psprintf("(%s)", md_partial_rows_text(latest->inputs, &source));
	if (!has_hidden(latest))
		upsert_first(refresh, rows);
	else
	{
		md_relation_read(&first, FIRST, first_rows(latest, rows, ""), refresh->snapshot);
		apply_winners(refresh, "true");
		md_relation_forget(&first);
	}
}

void
md_latest_rebuild(MdRefresh *refresh)
{
	MdLatest   *latest = refresh->plan->latest;
	MdTarget   *state = order_table(refresh);
	bool		is_first = refresh->view->refresh_number == 0;
	Query	   *input = md_partial_linear(refresh->plan->query, latest->inputs);
	char	   *all = first_rows(latest, psprintf("(%s)", md_query_text(input)), "");
	char	   *shown = numbered(numbers_to(1, latest->result_count), "w", 'c');
	MdNamedStore stored = {0};
	MdRun		state_run = {0};
	MdStepKind	step;
	char	   *query = psprintf("SELECT %s FROM (%s) w", shown, all);

	if (state != NULL)
	{
		/* from a try that failed */
		(void) SPI_unregister_relation(FIRST);
		md_relation_read(&stored, FIRST, all, refresh->snapshot);
		step = md_step(&refresh->run.steps, MD_STEP_STATE);
		md_diff_fill(state, psprintf("SELECT %s FROM " FIRST " w", numbered(order_table_inputs(latest), "w", 'c')),
					 refresh->snapshot, &state_run);
		md_step_rows(&refresh->run.steps, MD_STEP_STATE, state_run.rows_inserted);
		(void) md_step(&refresh->run.steps, step);
		query = psprintf("SELECT %s FROM " FIRST " w", shown);
	}
	if (is_first)
		md_diff_fill(refresh->result, query, refresh->snapshot, &refresh->run);
	else
		md_diff_apply(refresh->result, query, latest->keys, NULL, refresh->snapshot, &refresh->run);
	if (stored.store != NULL)
		md_relation_forget(&stored);
}
