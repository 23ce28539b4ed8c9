/*
 * kafka_tool.h
 *		What the files of kafka_tool share: opening clients, counting
 *		deliveries, reading arguments.
 */
#ifndef KAFKA_TOOL_H
#define KAFKA_TOOL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

/* Print "kafka_tool: ..." and exit with 1. */
extern void die(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

/* Take the value of option "--name" out of argv; NULL if it is not there. */
extern const char *take_option(int *argc, char **argv, const char *name);

/* Refuse whatever looks like an option and was not taken. */
extern void refuse_options(int argc, char **argv);

/* argv[i] as a number, or die saying what is missing. */
extern int64_t number_argument(int argc, char **argv, int i, const char *what);
extern const char *text_argument(int argc, char **argv, int i, const char *what);

/*
 * A client of the given brokers.  properties are pairs of names and values
 * that end in a NULL name; a pair with a NULL value is left out.
 */
extern rd_kafka_t *open_client(rd_kafka_type_t type, const char *bootstrap,
							   const char *const *properties);

/*
 * The ends of a partition, or die.  One without a leader is asked again for
 * half a minute: a broker that stood still loses its partitions for a moment.
 */
extern void query_ends(rd_kafka_t *client, const char *topic, int partition,
					   int64_t *low, int64_t *high);

/* Deliveries of all producers of this process. */
extern int64_t delivered;
extern int64_t delivery_failures;

/* Wait until everything is delivered; dies if anything was not. */
extern void flush_producer(rd_kafka_t *producer);

/* The subcommands; argv[0] is the first word after the subcommand's name. */
extern int	admin_wait(int argc, char **argv);
extern int	admin_allow(int argc, char **argv);
extern int	admin_create(int argc, char **argv);
extern int	admin_delete(int argc, char **argv);
extern int	admin_add_partitions(int argc, char **argv);
extern int	admin_delete_records(int argc, char **argv);
extern int	admin_deny(int argc, char **argv);
extern int	admin_watermarks(int argc, char **argv);
extern int	admin_group_offsets(int argc, char **argv);
extern int	dump_records(int argc, char **argv);
extern int	time_arrivals(int argc, char **argv);
extern int	produce_records(int argc, char **argv);
extern int	generate_records(int argc, char **argv);
extern int	run_mock_cluster(int argc, char **argv);

#endif							/* KAFKA_TOOL_H */
