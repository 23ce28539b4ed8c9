/*
 * refresh_order.c
 *		ORDER BY as pieces of SQL.
 *
 * Operators are written out, so that an order is the one that the query was
 * analyzed with under any search_path; collations are those of the columns that
 * the names stand for.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "refresh_order.h"
#include "refresh_read.h"

MdOrder *
md_order_make(int input, const SortGroupClause *clause)
{
	MdOrder    *order = palloc0(sizeof(MdOrder));

	order->input = input;
	order->sort_operator = clause->sortop;
	order->equal_operator = clause->eqop;
	order->nulls_first = clause->nulls_first;
	return order;
}

char *
md_order_by(List *order, char **names)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, order)
	{
		MdOrder    *by = lfirst(lc);

		appendStringInfo(&list, "%s%s USING %s NULLS %s", list.len > 0 ? ", " : "", names[by->input - 1],
						 md_read_operator(by->sort_operator), by->nulls_first ? "FIRST" : "LAST");
	}
	return list.data;
}

/* Of a row as a whole, not of its fields. */
static char *
null_test(const char *name, bool is_null)
{
	return psprintf("%s IS %sDISTINCT FROM NULL", name, is_null ? "NOT " : "");
}

char *
md_order_before(List *order, char **a, char **b)
{
	char	   *condition = "false";

	for (int n = list_length(order) - 1; n >= 0; n--)
	{
		MdOrder    *by = list_nth(order, n);
		const char *x = a[by->input - 1];
		const char *y = b[by->input - 1];

		condition = psprintf("%s %s %s OR %s AND %s OR (%s %s %s OR %s AND %s) AND (%s)",
							 x, md_read_operator(by->sort_operator), y,
							 null_test(x, by->nulls_first), null_test(y, !by->nulls_first),
							 x, md_read_operator(by->equal_operator), y,
							 null_test(x, true), null_test(y, true), condition);
	}
	return condition;
}

char **
md_order_names(int count, const char *alias, char prefix)
{
	char	  **names = palloc(sizeof(char *) * Max(1, count));

	for (int n = 0; n < count; n++)
		names[n] = psprintf("%s.%c%d", alias, prefix, n + 1);
	return names;
}
