/* dsm/dsm.h - shared memory across the processes of a job, wherever they run.
 *
 * A program started by `dsmexec machine_file program` calls dsm_init; from then on every rank sees the same bytes at
 * the same addresses, moved between machines page by page as they are touched. A program that was not started by
 * dsmexec can join a session of dsmd's (dsm_join); otherwise it runs as a job of one rank.
 *
 * Functions returning int: 0, or -1 with errno set. What is "collective" must be called by all ranks in the same order,
 * by one thread of each rank. Everything else may be called from any thread at any time between dsm_init and
 * dsm_finalize. Nothing here is async-signal-safe; touching the region is, also from a signal handler,
 * which must then return (no siglongjmp). No function here, and no touch, is a cancellation point.
 *
 * A system call fails with EFAULT if its buffer lies in the region on a page that is not here; under `dsmexec --pager
 * uffd` it waits for the page instead (unless it goes around the page table: O_DIRECT, vmsplice, MSG_ZEROCOPY,
 * io_uring).
 *
 * The region is sequentially consistent, and any machine instruction within one page is atomic across machines.
 *
 * Every call has an example to paste, which the tests run: dsm/examples/calls_c.c.
 */
#ifndef DSM_DSM_H
#define DSM_DSM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Chooses the session that dsm_init then joins: `where` is "host:port/name" of a running dsmd, `members` how many
 * processes, 1 .. 64, the session has. They come by themselves, each at its time; dsm_init waits for the last, and they
 * get ranks in the order in which they came. A user can choose without this call, by DSM_SESSION=host:port/name:N in the
 * environment; this call counts more than that. The key file that dsmd uses must be here: ~/.config/dsm/key, or what
 * DSM_KEY_FILE says. Under dsmexec the call does nothing: the job is dsmexec's. EINVAL: that names no session (a line on
 * stderr says why); EALREADY: dsm_init has been called.
 * A session that has begun and loses a member is over: the other processes end with a line on stderr that says which,
 * and exit code 125, without atexit(3). */
int dsm_join(const char *where, int members);

/* Joins the job; collective. Returns the base of the region: the same address in every rank, page-aligned, zero-filled.
 * NULL and errno on failure: EALREADY called before, EPROTO refused by the job (a line on stderr says why), ETIMEDOUT
 * the other ranks did not come, ENOMEM no room for the region, EINVAL DSM_SESSION names no session. argc and argv are
 * those of main; they are not changed. */
char *dsm_init(int argc, char **argv);

/* Leaves the job; collective: a barrier, after which no rank touches the region any more. No other thread of the rank
 * may be in a dsm_ call, or touch the region, when it is called. A rank that ends without it fails the job. Does
 * nothing before dsm_init. After it, a touch of the region, and every call but dsm_size, dsm_page_size and
 * dsm_sem_close, ends the program with a line on stderr. */
void dsm_finalize(void);

/* This process's rank, 0 .. DSM_NODE_NUM-1, and the number of ranks. 0 and 1 before dsm_init. */
extern int DSM_NODE_ID;
extern int DSM_NODE_NUM;

/* Size of the region and of one page, in bytes; 0 before dsm_init and after dsm_finalize. */
size_t dsm_size(void);
size_t dsm_page_size(void);

/* ---- Memory ----
 *
 * A program uses either the raw region from dsm_init's base or the functions below, never both. They wait for each
 * other: one thread of one rank at a time.
 *
 * dsm_alloc sets `bytes` of the region aside, page-aligned and zero-filled; collective, with the same size in every
 * rank. NULL and ENOMEM, in every rank, when the region has no room left; EINVAL for 0. Never given back. If two ranks
 * have called it with different sizes, the next barrier ends the job. Under dsmexec --home block it may
 * wait for all ranks, and fail with EBUSY, as dsm_barrier: an allocation must not wait for another rank's next step. */
void *dsm_alloc(size_t bytes);

/* As malloc(3) and free(3), in the region: any rank may use and free what another has made. The first call makes all
 * that dsm_alloc has not set aside the heap's; dsm_alloc then takes from the heap, too.
 * dsm_malloc: aligned to 16 bytes, contents undefined; a pointer of its own for 0 bytes. NULL and ENOMEM when there is
 * no room, NULL and ENOLCK as dsm_lock. Small blocks share pages: what ranks write all the time is better off on pages
 * of its own (dsm_alloc).
 * dsm_free: NULL is ignored. What is no block, or has been freed, ends the program with a line on stderr (SIGABRT). */
void *dsm_malloc(size_t bytes);
void dsm_free(void *p);

/* The block of the job that has this name, of 1 to 255 bytes. The first to ask for it sets it aside, `bytes` long,
 * aligned to 16 bytes and zero-filled, and calls make(block, context), in which it may use all of dsm.h but
 * dsm_finalize; whoever comes meanwhile waits. If make returns 0, the block is ready, and stays as it is till the job
 * ends; otherwise the call fails with what make has returned as errno, and the next to come makes it anew. make may be
 * NULL: zeroes will do.
 * NULL and EEXIST: the block has another size; EINVAL: no such name can be, or bytes is 0; ENOMEM: no room; EDEADLK:
 * called by make for its own name; EAGAIN, ENOLCK as dsm_lock. Keep the pointer: to look up a name costs as much as
 * dsm_malloc. */
void *dsm_named(const char *name, size_t bytes, int (*make)(void *block, void *context), void *context);

/* Waits until every rank has called it; collective. What any rank wrote before is seen by every rank after. EBUSY:
 * another thread of this rank is in it. */
int dsm_barrier(void);

/* ---- Locks, condition variables, semaphores ----
 *
 * Each function that waits, or asks another rank, fails with EAGAIN when 192 threads of this rank wait in such calls
 * already. None is async-signal-safe.
 *
 * A lock has a number, 0 .. 65535 (EINVAL beyond), or is named by an address in the region (EINVAL elsewhere): any
 * address, whatever is stored there; a lock costs nothing until it is used, and nothing is read or written at its
 * address. It is held by one thread of one rank. Not recursive.
 *
 * dsm_lock waits for it: EDEADLK if this thread holds it. dsm_trylock does not wait: EBUSY if anybody holds it or waits
 * for it. Both: ENOLCK if there is no room for another lock at this rank or the lock's home: each remembers 1,048,576,
 * those that are held or wanted, and those that were last used there or, of a home, elsewhere. dsm_unlock: EPERM unless
 * this thread holds it.
 * A lock stays at the rank that used it last: to take it there again costs no message. Elsewhere: 2 or 3; from one who
 * holds it to the next who waits: 1. A rank hands it on to the next rank after those of its own threads that came
 * earlier. */
int dsm_lock(unsigned id);
int dsm_trylock(unsigned id);
int dsm_unlock(unsigned id);
int dsm_lock_at(void *p);
int dsm_trylock_at(void *p);
int dsm_unlock_at(void *p);

/* A condition variable is named by an address in the region, as a lock is. dsm_cond_wait_at lets go of the lock named
 * by `lock`, waits until it is woken, and takes the lock again: EPERM unless this thread holds it; ENOLCK as dsm_lock,
 * and then the lock is not held any more. Look again at what you wait for: another thread may have been faster.
 * dsm_cond_signal_at wakes the one who has waited longest, if anybody does; dsm_cond_broadcast_at wakes all. Both may
 * be called with or without the lock. */
int dsm_cond_wait_at(void *c, void *lock);
int dsm_cond_signal_at(void *c);
int dsm_cond_broadcast_at(void *c);

/* A semaphore has a name of 1 to 255 bytes (EINVAL), the same in every rank. dsm_sem_open: the first to open it gives
 * it its value; ENOSPC beyond 4096 per rank on average, ENOMEM. It lives until the job ends. dsm_sem_wait takes one
 * from it, and waits while it is 0; dsm_sem_trywait does not wait: EAGAIN. First come, first served. When dsm_sem_post
 * has returned, every rank can see it. dsm_sem_close gives back the handle, which no thread may be using. */
typedef struct dsm_sem dsm_sem_t;
dsm_sem_t *dsm_sem_open(const char *name, unsigned value);
int dsm_sem_wait(dsm_sem_t *sem);
int dsm_sem_trywait(dsm_sem_t *sem);
int dsm_sem_post(dsm_sem_t *sem);
int dsm_sem_close(dsm_sem_t *sem);

/* ---- Atomic operations where the page is ----
 *
 * Any atomic instruction on the region is atomic across machines: it brings the page here first. These two leave the
 * page where it is, and are done there: for a word that many ranks count in, and that few read. *p is in the region, at
 * a multiple of 8. Messages: 0 if this rank may write the page, or is its home and nobody else has it; 2 if the home
 * has it, 4 if another rank does; and 2 for each rank that has a copy to read, which it loses. Under dsmexec --home
 * first-touch a rank's first operation on a page it has never had reads the page first, to learn where it lives. */

/* Adds v to *p, modulo 2^64; returns what it was before. Where p is no such word: a line on stderr, and abort(). */
uint64_t dsm_fetch_add_u64(uint64_t *p, uint64_t v);

/* If *p is *expected, sets it to desired: 0. If not: -1 and EAGAIN, and *expected is what *p was. EINVAL: p is no such
 * word, or expected is NULL. */
int dsm_compare_swap_u64(uint64_t *p, uint64_t *expected, uint64_t desired);

/* ---- Broadcast and reduce: collective, with the same root, n and op in every rank ----
 *
 * The memory is the program's own, in the region or not. In root: what another thread of the job writes to it meanwhile
 * is passed on or not. EINVAL: root is no rank, op is none of these, or memory is NULL. EBUSY: another thread of this
 * rank is in a barrier, or in one of these. If two ranks have called them with different arguments, the next barrier
 * (there is one inside) ends the job. Each page of data costs a write fault where it comes from and a read fault where
 * it goes to; a barrier (2(n-1) messages) every DSM_NODE_NUM pages (broadcast) or each page (reduce). */

/* Copies root's n bytes at buf to buf in all ranks. */
int dsm_broadcast(int root, void *buf, size_t n);

/* out[i] in root becomes in[i] of all ranks combined, in the order of the ranks: with the same ranks the same bits each
 * time. out is not looked at elsewhere, and may be in. Integers wrap round; what MIN and MAX make of a NaN is not
 * said. */
enum dsm_op { DSM_SUM, DSM_PROD, DSM_MIN, DSM_MAX };
int dsm_reduce_f64(int root, const double *in, double *out, size_t n, enum dsm_op op);
int dsm_reduce_i64(int root, const int64_t *in, int64_t *out, size_t n, enum dsm_op op);

/* ---- Pages for a system call ----
 *
 * Under the pager sigsegv only instructions bring pages here: a system call that is given a page of the region that is
 * not here, or not writable, as read(2) into it is, fails with EFAULT. dsm_pin fetches the pages of [p, p+n), for
 * writing if `write` is not 0, else for reading, and keeps them here until dsm_unpin of the same range; other ranks
 * that want them wait meanwhile. But not for ever: dsm_pin has a second to fetch them (then EAGAIN; none is pinned),
 * and from its return on they are kept for at least one second and at most two. At most 256 pages of a rank can be
 * pinned at one time (1 MiB in pages of 4 KiB): ENOMEM. EINVAL: n is 0, or not all of it lies in the region. Pins are
 * counted: threads may pin the same pages, and each dsm_pin needs its dsm_unpin, also if its time has passed. Ranks
 * that pin the same pages do so one after the other, for whoever pins takes pages in ascending order and keeps those it
 * has; whoever pins a second range while it keeps a first one may have to wait for the end of another's time. */
int dsm_pin(void *p, size_t n, int write);
int dsm_unpin(void *p, size_t n);

/* What this rank has done since dsm_init. Counts unless a unit is named. */
struct dsm_stats {
  uint64_t read_faults;   /* faults by reading a page that was not here */
  uint64_t write_faults;  /* faults by writing a page that was not here, or not writable */
  uint64_t messages;      /* sent by this rank to others, of every kind */
  uint64_t bytes_out;     /* bytes of those messages */
  uint64_t bytes_in;      /* bytes of messages received */
  uint64_t invalidations; /* readable copies taken from this rank */
  uint64_t recalls;       /* pages taken from this rank while it could write them */
  uint64_t grants;        /* pages granted to this rank by a remote home */
  uint64_t wasted_grants; /* of these: taken back before any thread that waited for it ran on */
  uint64_t lock_waits;    /* dsm_lock and dsm_trylock calls, by number or address */
  uint64_t barriers;      /* dsm_barrier calls */
};
/* A struct and a function may share a name, as stat(2)'s do; -Wshadow does not know. */
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif
int dsm_stats(struct dsm_stats *out);
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#ifdef __cplusplus
}
#endif
#endif
