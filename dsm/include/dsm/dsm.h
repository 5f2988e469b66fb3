/* dsm/dsm.h - shared memory across the processes of a job, wherever they run.
 *
 * A program started by `dsmexec machine_file program` calls dsm_init; from then on every rank sees the same bytes at the
 * same addresses, moved between machines page by page as they are touched. A program that was not started by dsmexec
 * runs as a job of one rank.
 *
 * Functions returning int: 0, or -1 with errno set. What is "collective" must be called by all ranks in the same order,
 * by one thread of each rank. Everything else may be called from any thread at any time between dsm_init and
 * dsm_finalize. Nothing here is async-signal-safe; touching the region is, also from a signal handler,
 * which must then return (no siglongjmp). No function here, and no touch, is a cancellation point.
 *
 * The region is sequentially consistent, and any machine instruction within one page is atomic across machines.
 */
#ifndef DSM_DSM_H
#define DSM_DSM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Joins the job; collective. Returns the base of the region: the same address in every rank, page-aligned, zero-filled.
 * NULL and errno on failure: EALREADY called before, EPROTO refused by the job (a line on stderr says why), ETIMEDOUT
 * the other ranks did not come, ENOMEM no room for the region. argc and argv are those of main; they are not changed. */
char *dsm_init(int argc, char **argv);

/* Leaves the job; collective: a barrier, after which no rank touches the region any more. No other thread of the rank may be
 * in a dsm_ call, or touch the region, when it is called. A rank that ends without it fails the job. Does nothing before
 * dsm_init. */
void dsm_finalize(void);

/* This process's rank, 0 .. DSM_NODE_NUM-1, and the number of ranks. 0 and 1 before dsm_init. */
extern int DSM_NODE_ID;
extern int DSM_NODE_NUM;

/* Size of the region and of one page, in bytes; 0 before dsm_init. */
size_t dsm_size(void);
size_t dsm_page_size(void);

/* Sets `bytes` of the region aside, page-aligned; collective, with the same size in every rank. NULL and ENOMEM when the
 * region has no room left, EINVAL for 0. Never given back. A program uses either the raw region from dsm_init's base or
 * this, never both. */
void *dsm_alloc(size_t bytes);

/* Waits until every rank has called it; collective. What any rank wrote before is seen by every rank after. EBUSY: another
 * thread of this rank is in it. */
int dsm_barrier(void);

/* A lock by number, 0 .. 65535 (EINVAL beyond), the same in every rank. Not recursive: EDEADLK if this thread holds it.
 * EAGAIN: 192 threads of this rank wait already. dsm_unlock: EPERM unless this thread holds it. First come, first served. */
int dsm_lock(unsigned id);
int dsm_unlock(unsigned id);

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
  uint64_t lock_waits;    /* dsm_lock calls */
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
