/*
 * asan_first.c
 *		Loaded with the sanitizer's runtime to start it before anything else.
 *
 * Left alone it starts at the first malloc, which in a server that links
 * GnuTLS comes from bindtextdomain(), under glibc's lock of message catalogs.
 * Its start-up looks symbols up, a failed look-up translates its message, and
 * that releases the lock under the caller's feet: the next one waits forever.
 * Linked with -z initfirst, this runs before the constructor of any library.
 */
extern void __asan_init(void);

static __attribute__((constructor)) void
start_sanitizer(void)
{
	__asan_init();
}
