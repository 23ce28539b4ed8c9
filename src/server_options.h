/*
 * server_options.h
 *		The options of a Kafka server and of its user mappings.
 *
 * An option is a property of librdkafka's with "_" for "."; what is not on
 * the list of those that are allowed is refused.
 */
#ifndef MD_SERVER_OPTIONS_H
#define MD_SERVER_OPTIONS_H

#include "postgres.h"
#include "nodes/pg_list.h"

typedef enum MdOptionDisposition
{
	MD_OPTION_ALLOWED,
	MD_OPTION_REFUSED,			/* never: reason says why */
	MD_OPTION_RESERVED			/* the extension sets it: reason says how */
} MdOptionDisposition;

typedef enum MdOptionType
{
	MD_OPTION_STRING,
	MD_OPTION_BOOLEAN,
	MD_OPTION_INTEGER,			/* of min .. max */
	MD_OPTION_ENUM,				/* of values */
	MD_OPTION_BROKERS,			/* host[:port], ... */
	MD_OPTION_URL				/* http or https, without a password */
} MdOptionType;

/* Where an option may stand, and what it is; bits of MdServerOption.flags. */
#define MD_OPTION_ON_SERVER		0x01
#define MD_OPTION_ON_MAPPING	0x02
#define MD_OPTION_SECRET		0x04	/* in user mappings alone, never shown */
#define MD_OPTION_FILE			0x08	/* names a file of the server's machine */
#define MD_OPTION_OWN			0x10	/* not a property of librdkafka's */

typedef struct MdServerOption
{
	const char *property;		/* librdkafka's name */
	MdOptionDisposition disposition;
	int			flags;
	MdOptionType type;
	int64		min;
	int64		max;
	const char *const *values;	/* ends with NULL */
	const char *reason;			/* NULL if allowed; a full sentence */
} MdServerOption;

/* The list, in alphabetical order; ends with a NULL property. */
extern const MdServerOption md_server_option_list[];

/* librdkafka's name with "_" for ".", palloc'd. */
extern char *md_server_option_name(const char *property);

/* By librdkafka's name, or by the option's; NULL if the list has it not. */
extern const MdServerOption *md_server_option_by_property(const char *property);
extern const MdServerOption *md_server_option_by_name(const char *name);

/* The value as librdkafka spells it: case of enumerations, true and false. */
extern const char *md_server_option_value(const MdServerOption *option,
										  const char *value);

/*
 * Check all options (of DefElem) of one server, or one user mapping; ERROR for
 * the first that may not stand there.  No message shows a secret's value.
 * Files may only be named by members of pg_read_server_files.
 */
extern void md_server_options_check(List *options, bool is_mapping);

#endif							/* MD_SERVER_OPTIONS_H */
