# pg_medallion: make && make install && make installcheck
#
# Needs pg_config (PostgreSQL 15 or later) and the development files of
# librdkafka (>= 2.0.2) and libxxhash. installcheck needs a running server
# that has pg_medallion in shared_preload_libraries.

EXTENSION = pg_medallion
MODULE_big = pg_medallion
DATA = $(wildcard pg_medallion--*.sql)
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

PG_CPPFLAGS = -Isrc
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare
SHLIB_LINK = -lrdkafka

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS_OPTS = --inputdir=. --load-extension=pg_medallion

ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --load-extension=pg_medallion --inputdir=test

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Every object is rebuilt when a header changes: the tree is small.
$(OBJS): $(wildcard src/*.h)
