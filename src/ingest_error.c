/*
 * ingest_error.c
 *		What an error of ingest says about the record that it came of.
 */
#include "postgres.h"

#include "ingest.h"

/*
 * Errors of the machine, of other sessions, and of the definition are listed:
 * they end without the record being changed.  All others are the record's,
 * those that a trigger raises under a code of its own included.
 */
bool
md_ingest_is_data_error(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_CONNECTION_EXCEPTION:	/* 08 */
		case ERRCODE_INVALID_TRANSACTION_STATE: /* 25 */
		case ERRCODE_INVALID_SQL_STATEMENT_NAME:	/* 26 */
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:	/* 28 */
		case ERRCODE_DEPENDENT_PRIVILEGE_DESCRIPTORS_STILL_EXIST:	/* 2B */
		case ERRCODE_INVALID_TRANSACTION_TERMINATION:	/* 2D */
		case ERRCODE_INVALID_CURSOR_NAME:	/* 34 */
		case ERRCODE_SAVEPOINT_EXCEPTION:	/* 3B */
		case ERRCODE_INVALID_CATALOG_NAME:	/* 3D */
		case ERRCODE_INVALID_SCHEMA_NAME:	/* 3F */
		case ERRCODE_TRANSACTION_ROLLBACK:	/* 40 */
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: /* 42 */
		case ERRCODE_INSUFFICIENT_RESOURCES:	/* 53 */
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:	/* 55 */
		case ERRCODE_OPERATOR_INTERVENTION: /* 57 */
		case ERRCODE_SYSTEM_ERROR:	/* 58 */
		case MAKE_SQLSTATE('7', '2', '0', '0', '0'):	/* 72, which has no name since 17 */
		case ERRCODE_CONFIG_FILE_ERROR: /* F0 */
		case ERRCODE_FDW_ERROR: /* HV */
		case ERRCODE_INTERNAL_ERROR:	/* XX */
			return false;
		default:
			return true;
	}
}
