/*
 * kafka_request.h
 *		Questions to Kafka with a time limit, that a cancel interrupts.
 */
#ifndef MD_KAFKA_REQUEST_H
#define MD_KAFKA_REQUEST_H

#include "postgres.h"

#include "kafka_client.h"

/*
 * Each asks until there is an answer, and throws when timeout_ms has passed
 * without one, or at once for what waiting cannot cure, such as a wrong
 * password: ERRCODE_CONNECTION_FAILURE, with server_name and the reason.
 *
 * Runs in: sessions and workers; CHECK_FOR_INTERRUPTS at least every second.
 */
extern void md_kafka_request_cluster_info(MdKafkaClient *client, const char *server_name,
										  int timeout_ms, MdKafkaClusterInfo *info);
extern List *md_kafka_request_topics(MdKafkaClient *client, const char *server_name,
									 int timeout_ms);	/* all; of MdKafkaTopic */

/* ERRCODE_UNDEFINED_OBJECT, with the nearest topic, for one that is none. */
extern MdKafkaTopic *md_kafka_request_topic(MdKafkaClient *client, const char *server_name,
											const char *topic, int timeout_ms);

/* All of them, or an error: positions[].error is never set. */
extern void md_kafka_request_positions(MdKafkaClient *client, const char *server_name,
									   MdKafkaPosition *positions, int n_positions,
									   int timeout_ms);

/* All queries of all partitions of a topic; both of the errors above. */
extern MdKafkaSurvey *md_kafka_request_survey(MdKafkaClient *client, const char *server_name,
											  const char *topic, const int64 *queries,
											  int n_queries, int timeout_ms);

#endif							/* MD_KAFKA_REQUEST_H */
