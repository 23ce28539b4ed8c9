/*
 * stable_functions.c
 *		Whether an expression gives the same for the same row at every refresh.
 *
 * IMMUTABLE functions do.  STABLE ones built into Postgres do when all that
 * they depend on are settings, because a view's settings are pinned; they are
 * listed here by name (every STABLE function of that name has been looked at).
 * Not listed, on purpose, is whatever depends on the catalog (casts from and to
 * regclass, enum labels, to_regtype ...), on who asks, or on the clock.
 *
 * Text such as 'today', cast to a time at run time, depends on the clock too.
 * It cannot be told from other text before it is read, so these casts pass.
 *
 * now() is a case of its own: in a view it means the time of the refresh.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "access/transam.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "stable_functions.h"

/* STABLE functions that depend on pinned settings alone; sorted. */
static const char *const setting_functions[] = {
	"array_to_json",
	"cash_in",
	"cash_out",
	"concat",
	"concat_ws",
	"convert",
	"convert_from",
	"convert_to",
	"date",
	"date_cmp_timestamptz",
	"date_eq_timestamptz",
	"date_ge_timestamptz",
	"date_gt_timestamptz",
	"date_in",
	"date_le_timestamptz",
	"date_lt_timestamptz",
	"date_ne_timestamptz",
	"date_out",
	"date_part",
	"date_trunc",
	"extract",
	"format",
	"generate_series",
	"interval_in",
	"interval_out",
	"interval_pl_timestamptz",
	"json_agg",
	"json_agg_strict",
	"json_build_array",
	"json_build_object",
	"json_object_agg",
	"json_object_agg_strict",
	"json_object_agg_unique",
	"json_object_agg_unique_strict",
	"json_populate_record",
	"json_populate_recordset",
	"json_to_record",
	"json_to_recordset",
	"jsonb_agg",
	"jsonb_agg_strict",
	"jsonb_build_array",
	"jsonb_build_object",
	"jsonb_object_agg",
	"jsonb_object_agg_strict",
	"jsonb_object_agg_unique",
	"jsonb_object_agg_unique_strict",
	"jsonb_path_exists_tz",
	"jsonb_path_match_tz",
	"jsonb_path_query_array_tz",
	"jsonb_path_query_first_tz",
	"jsonb_path_query_tz",
	"jsonb_populate_record",
	"jsonb_populate_recordset",
	"jsonb_to_record",
	"jsonb_to_recordset",
	"length",
	"make_timestamptz",
	"money",
	"numeric",
	"overlaps",
	"quote_literal",
	"quote_nullable",
	"row_to_json",
	"time",
	"time_in",
	"timestamp",
	"timestamp_cmp_timestamptz",
	"timestamp_eq_timestamptz",
	"timestamp_ge_timestamptz",
	"timestamp_gt_timestamptz",
	"timestamp_in",
	"timestamp_le_timestamptz",
	"timestamp_lt_timestamptz",
	"timestamp_ne_timestamptz",
	"timestamp_out",
	"timestamptz",
	"timestamptz_cmp_date",
	"timestamptz_cmp_timestamp",
	"timestamptz_eq_date",
	"timestamptz_eq_timestamp",
	"timestamptz_ge_date",
	"timestamptz_ge_timestamp",
	"timestamptz_gt_date",
	"timestamptz_gt_timestamp",
	"timestamptz_in",
	"timestamptz_le_date",
	"timestamptz_le_timestamp",
	"timestamptz_lt_date",
	"timestamptz_lt_timestamp",
	"timestamptz_mi_interval",
	"timestamptz_ne_date",
	"timestamptz_ne_timestamp",
	"timestamptz_out",
	"timestamptz_pl_interval",
	"timetz",
	"timetz_in",
	"timezone",
	"to_char",
	"to_date",
	"to_json",
	"to_jsonb",
	"to_number",
	"to_timestamp",
};

typedef struct FindContext
{
	MdUnstable *found;
	Node	   *node;			/* whose functions are looked at */
} FindContext;

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static bool
depends_on_settings_only(Oid function_id)
{
	char	   *name;

	if (function_id >= FirstNormalObjectId)
		return false;
	name = get_func_name(function_id);
	return name != NULL &&
		bsearch(&name, setting_functions, lengthof(setting_functions),
				sizeof(char *), compare_names) != NULL;
}

static bool
is_refresh_time(Oid function_id)
{
	return function_id == F_NOW || function_id == F_TRANSACTION_TIMESTAMP;
}

/* Note the construct unless one that weighs more is known; true to stop. */
static bool
note(MdUnstable *found, char *construct, char *why, int location, bool is_time)
{
	if (found->construct == NULL || (found->is_time && !is_time))
	{
		found->construct = construct;
		found->why = why;
		found->location = location;
		found->is_time = is_time;
	}
	/* go on behind now(): something worse may follow */
	return !is_time;
}

/* Callback of check_functions_in_node. */
static bool
check_function(Oid function_id, void *context)
{
	FindContext *find = context;
	char		volatility = func_volatile(function_id);
	char	   *name;

	if (volatility == PROVOLATILE_IMMUTABLE)
		return false;
	if (volatility == PROVOLATILE_STABLE && depends_on_settings_only(function_id))
		return false;

	name = psprintf("function %s()", get_func_name(function_id));
	if (is_refresh_time(function_id))
		return note(find->found, name, "it is the time of the refresh and moves",
					exprLocation(find->node), true);
	if (volatility == PROVOLATILE_VOLATILE)
		return note(find->found, name, "it is VOLATILE",
					exprLocation(find->node), false);
	return note(find->found, name,
				function_id >= FirstNormalObjectId ?
				"it is STABLE, so it may read tables that change" :
				"it is STABLE and depends on more than pinned settings",
				exprLocation(find->node), false);
}

static bool
is_time_value(SQLValueFunction *value)
{
	return value->op <= SVFOP_LOCALTIMESTAMP_N;
}

static bool
find_walker(Node *node, MdUnstable *found)
{
	FindContext context = {found, node};

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return false;
	if (check_functions_in_node(node, check_function, &context))
		return true;
	if (IsA(node, SQLValueFunction))
	{
		SQLValueFunction *value = (SQLValueFunction *) node;

		if (is_time_value(value))
			return note(found, "the current time",
						"it is the time of the refresh and moves", value->location, true);
		return note(found, "the current user or schema", "it depends on who asks",
					value->location, false);
	}
	if (IsA(node, NextValueExpr))
		return note(found, "a sequence", "its values differ at each refresh", -1, false);
	return expression_tree_walker(node, find_walker, found);
}

bool
md_unstable_find(Node *expr, MdUnstable *found)
{
	memset(found, 0, sizeof(*found));
	found->location = -1;
	(void) find_walker(expr, found);
	return found->construct != NULL;
}

static bool
time_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, time_walker, context, 0);
	if ((IsA(node, FuncExpr) && is_refresh_time(((FuncExpr *) node)->funcid)) ||
		(IsA(node, SQLValueFunction) && is_time_value((SQLValueFunction *) node)))
		return true;
	return expression_tree_walker(node, time_walker, context);
}

bool
md_unstable_has_time(Node *node)
{
	return time_walker(node, NULL);
}

static Const *
time_const(Oid type, int32 typmod, Datum value)
{
	int16		len;
	bool		by_value;

	get_typlenbyval(type, &len, &by_value);
	return makeConst(type, typmod, InvalidOid, len, value, false, by_value);
}

/* The value of CURRENT_DATE and its like at `time`. */
static Const *
time_value_const(SQLValueFunction *value, TimestampTz time)
{
	Datum		rounded = TimestampTzGetDatum(time);

	if (value->typmod >= 0)
		rounded = DirectFunctionCall2(timestamptz_scale, rounded,
									  Int32GetDatum(value->typmod));
	switch (value->type)
	{
		case DATEOID:
			return time_const(DATEOID, -1, DirectFunctionCall1(timestamptz_date, rounded));
		case TIMETZOID:
			return time_const(TIMETZOID, value->typmod,
							  DirectFunctionCall1(timestamptz_timetz, rounded));
		case TIMEOID:
			return time_const(TIMEOID, value->typmod,
							  DirectFunctionCall1(timestamptz_time, rounded));
		case TIMESTAMPOID:
			return time_const(TIMESTAMPOID, value->typmod,
							  DirectFunctionCall1(timestamptz_timestamp, rounded));
		case TIMESTAMPTZOID:
			return time_const(TIMESTAMPTZOID, value->typmod, rounded);
		default:
			elog(ERROR, "unexpected type %u of a current time", value->type);
	}
}

static Node *
fix_time_mutator(Node *node, TimestampTz *time)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, fix_time_mutator, time, 0);
	if (IsA(node, FuncExpr) && is_refresh_time(((FuncExpr *) node)->funcid))
		return (Node *) time_const(TIMESTAMPTZOID, -1, TimestampTzGetDatum(*time));
	if (IsA(node, SQLValueFunction) && is_time_value((SQLValueFunction *) node))
		return (Node *) time_value_const((SQLValueFunction *) node, *time);
	return expression_tree_mutator(node, fix_time_mutator, time);
}

Node *
md_unstable_fix_time(Node *node, TimestampTz time)
{
	return fix_time_mutator(node, &time);
}
