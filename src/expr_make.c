/*
 * expr_make.c
 *		Expressions made by name, of what pg_catalog has.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "utils/lsyscache.h"

#include "expr_make.h"

Expr *
md_expr_cast(Expr *expr, Oid to)
{
	return (Expr *) coerce_to_target_type(NULL, (Node *) expr, exprType((Node *) expr),
										  to, -1, COERCION_EXPLICIT,
										  COERCE_EXPLICIT_CAST, -1);
}

Expr *
md_expr_operate(const char *name, Expr *left, Expr *right)
{
	Oid			operator = OpernameGetOprid(list_make2(makeString("pg_catalog"),
													   makeString(pstrdup(name))),
											exprType((Node *) left), exprType((Node *) right));

	if (!OidIsValid(operator))
		elog(ERROR, "no operator %s", name);
	return make_opclause(operator, get_op_rettype(operator), false, left, right,
						 InvalidOid, InvalidOid);
}

Expr *
md_expr_call(const char *name, Oid result_type, List *arguments)
{
	Oid			types[2];
	int			count = 0;
	ListCell   *lc;

	foreach(lc, arguments)
		types[count++] = exprType(lfirst(lc));
	return (Expr *) makeFuncExpr(LookupFuncName(list_make2(makeString("pg_catalog"),
														   makeString(pstrdup(name))),
												count, types, false),
								 result_type, arguments, InvalidOid, InvalidOid,
								 COERCE_EXPLICIT_CALL);
}

Expr *
md_expr_int8(int64 value)
{
	return (Expr *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(value),
							  false, FLOAT8PASSBYVAL);
}

Expr *
md_expr_int4(int32 value)
{
	return (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(value),
							  false, true);
}

/* CASE WHEN count > bound THEN value END */
Node *
md_expr_when_more(Expr *count, int64 bound, Expr *value)
{
	CaseExpr   *expr = makeNode(CaseExpr);
	CaseWhen   *when = makeNode(CaseWhen);

	when->expr = md_expr_operate(">", copyObject(count), md_expr_int8(bound));
	when->result = value;
	when->location = -1;
	expr->casetype = exprType((Node *) value);
	expr->casecollid = exprCollation((Node *) value);
	expr->args = list_make1(when);
	expr->defresult = (Expr *) makeNullConst(expr->casetype, -1, expr->casecollid);
	expr->location = -1;
	return (Node *) expr;
}
