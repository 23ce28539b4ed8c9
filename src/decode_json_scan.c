/*
 * decode_json_scan.c
 *		Where JSON values end, for text that is plainly JSON.
 *
 * Records are machine-made and nearly always valid, and most of a decoder's
 * time used to go into telling tokens apart.  These functions look at several
 * bytes at a time and know only what RFC 8259 allows.  They have no errors: for
 * all that is not JSON, and for what is nested deeper than MAX_DEPTH, the answer
 * is NULL, "not sure", and the caller asks Postgres's parser, whose word counts
 * and whose messages users see.  So all that these functions accept must be
 * what that parser accepts; sql/decode.sql compares the two.
 *
 * The text is verified (decode_text.c): bytes beyond ASCII are parts of
 * characters, and none of those is a quote, a backslash or a control
 * character in any encoding of a server.
 */
#include "postgres.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "port/pg_bitutils.h"

#include "decode_json.h"

#define MAX_DEPTH	64

#define BYTES_OF(byte)	(UINT64CONST(0x0101010101010101) * (byte))

static const char *scan_value(const char *p, const char *end, int depth);

static inline bool
is_digit(char c)
{
	return (unsigned char) (c - '0') <= 9;
}

/*
 * The high bit of each byte of the word that ends a run of plain characters:
 * a quote, a backslash or a control character.  Bytes above one that is found
 * may be marked by mistake; the lowest mark is right.
 */
static inline uint64
special_bytes(uint64 word)
{
	uint64		quote = word ^ BYTES_OF('"');
	uint64		backslash = word ^ BYTES_OF('\\');

	return ((((quote - BYTES_OF(1)) & ~quote) |
			 ((backslash - BYTES_OF(1)) & ~backslash) |
			 ((word - BYTES_OF(0x20)) & ~word)) & BYTES_OF(0x80));
}

/* The first character at or after p that is not plain, or end. */
static inline const char *
skip_plain(const char *p, const char *end)
{
#ifdef __SSE2__
	/* the same as below, 16 bytes at a time */
	for (; end - p >= (ptrdiff_t) sizeof(__m128i); p += sizeof(__m128i))
	{
		const __m128i bytes = _mm_loadu_si128((const __m128i *) p);
		const __m128i controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
		const __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
										  _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
		uint32		special = _mm_movemask_epi8(_mm_or_si128(controls, ends));

		if (special != 0)
			return p + pg_rightmost_one_pos32(special);
	}
#endif
#ifndef WORDS_BIGENDIAN
	for (; end - p >= (ptrdiff_t) sizeof(uint64); p += sizeof(uint64))
	{
		uint64		word;
		uint64		special;

		memcpy(&word, p, sizeof(word));
		special = special_bytes(word);
		if (special != 0)
			return p + pg_rightmost_one_pos64(special) / BITS_PER_BYTE;
	}
#endif
	while (p < end && *p != '"' && *p != '\\' && (unsigned char) *p >= 0x20)
		p++;
	return p;
}

/* Behind the escape sequence at p, which is a backslash. */
static const char *
scan_escape(const char *p, const char *end)
{
	if (end - p < 2)
		return NULL;
	if (p[1] != 'u')
		return p[1] != '\0' && strchr("\"\\/bfnrt", p[1]) != NULL ? p + 2 : NULL;
	if (end - p < 6)
		return NULL;
	for (int i = 2; i < 6; i++)
	{
		if (!is_digit(p[i]) && !((p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f'))
			return NULL;
	}
	return p + 6;
}

const char *
md_json_scan_string(const char *p, const char *end, bool *has_escapes)
{
	*has_escapes = false;
	if (p == end || *p != '"')
		return NULL;
	p++;
	for (;;)
	{
		p = skip_plain(p, end);
		if (p == end || (unsigned char) *p < 0x20)
			return NULL;
		if (*p == '"')
			return p + 1;
		*has_escapes = true;
		p = scan_escape(p, end);
		if (p == NULL)
			return NULL;
	}
}

/* Behind the digits at p; NULL if there are none. */
static inline const char *
scan_digits(const char *p, const char *end)
{
	const char *start = p;

	while (p < end && is_digit(*p))
		p++;
	return p > start ? p : NULL;
}

static const char *
scan_number(const char *p, const char *end)
{
	if (*p == '-')
		p++;
	if (p < end && *p == '0')
		p++;
	else
		p = scan_digits(p, end);
	if (p != NULL && p < end && *p == '.')
		p = scan_digits(p + 1, end);
	if (p != NULL && p < end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = scan_digits(p, end);
	}
	return p;
}

static const char *
scan_word(const char *p, const char *end, const char *word, int len)
{
	return end - p >= len && memcmp(p, word, len) == 0 ? p + len : NULL;
}

/* Behind the name and the colon of a member of an object. */
static const char *
scan_name(const char *p, const char *end)
{
	bool		has_escapes;

	p = md_json_scan_string(p, end, &has_escapes);
	if (p == NULL)
		return NULL;
	p = md_json_scan_space(p, end);
	return p < end && *p == ':' ? md_json_scan_space(p + 1, end) : NULL;
}

/* Behind the object or array at p, which ends with `close`. */
static const char *
scan_nested(const char *p, const char *end, char close, int depth)
{
	if (depth == MAX_DEPTH)
		return NULL;
	p = md_json_scan_space(p + 1, end);
	if (p < end && *p == close)
		return p + 1;
	for (;;)
	{
		if (close == '}')
			p = scan_name(p, end);
		if (p != NULL)
			p = scan_value(p, end, depth + 1);
		if (p == NULL)
			return NULL;
		p = md_json_scan_space(p, end);
		if (p == end)
			return NULL;
		if (*p == close)
			return p + 1;
		if (*p != ',')
			return NULL;
		p = md_json_scan_space(p + 1, end);
	}
}

static const char *
scan_value(const char *p, const char *end, int depth)
{
	bool		has_escapes;

	if (p == end)
		return NULL;
	switch (*p)
	{
		case '"':
			return md_json_scan_string(p, end, &has_escapes);
		case '{':
			return scan_nested(p, end, '}', depth);
		case '[':
			return scan_nested(p, end, ']', depth);
		case 't':
			return scan_word(p, end, "true", 4);
		case 'f':
			return scan_word(p, end, "false", 5);
		case 'n':
			return scan_word(p, end, "null", 4);
		default:
			return *p == '-' || is_digit(*p) ? scan_number(p, end) : NULL;
	}
}

const char *
md_json_scan_value(const char *p, const char *end)
{
	return scan_value(p, end, 0);
}
