/* calls_c - one short example for each call of dsm/dsm.h, to be pasted. The same for C++: calls.cpp.
 *
 * All ranks call all examples, in this order. EXPECT says what each has done; where it is not so, the job fails.
 *
 *   $ gcc -std=c11 -Idsm/include dsm/examples/calls_c.c -o calls_c -Lbuild/lib -ldsm -Wl,-rpath,$PWD/build/lib
 *   $ build/bin/dsmexec machine_file ./calls_c
 *   [Proc 0 : localhost : stdout] calls_c: OK
 */
#define _POSIX_C_SOURCE 200809L /* of pipe, read and write */
#include <dsm/dsm.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPECT(what) ((what) ? (void)0 : fail(__LINE__, #what))

static void fail(int line, const char *what) {
  fprintf(stderr, "calls_c.c:%d: rank %d: not so: %s (errno: %s)\n", line, DSM_NODE_ID, what, strerror(errno));
  exit(1);
}

/* ---- the job ---- */

static void example_dsm_join(void) {
  EXPECT(dsm_join("localhost:8080/calls", 2) == 0); /* dsm_init then joins a session; under dsmexec, its job as ever */
  EXPECT(dsm_join(NULL, 2) == -1 && errno == EINVAL);
}

static void example_dsm_init(int argc, char **argv) {
  char *base = dsm_init(argc, argv);
  if (base == NULL) exit(1); /* a line on stderr has said why */
  EXPECT(base[0] == 0 && DSM_NODE_ID < DSM_NODE_NUM);
  EXPECT(dsm_init(argc, argv) == NULL && errno == EALREADY);
}

static void example_dsm_size(void) {
  size_t pages = dsm_size() / dsm_page_size();
  EXPECT(pages >= 1);
}

static void example_dsm_page_size(void) {
  char *two_pages = dsm_alloc(2 * dsm_page_size());
  char *second = two_pages + dsm_page_size(); /* who writes here does not take the first page from anybody */
  EXPECT((uintptr_t)second % dsm_page_size() == 0);
}

static void example_dsm_stats(void) {
  struct dsm_stats before, after;
  EXPECT(dsm_stats(&before) == 0);
  EXPECT(dsm_barrier() == 0);
  EXPECT(dsm_stats(&after) == 0);
  EXPECT(after.barriers - before.barriers == 1);
}

static void example_dsm_finalize(void) {
  dsm_finalize(); /* waits for all; the region is gone */
  EXPECT(dsm_size() == 0);
}

/* ---- memory ---- */

static void example_dsm_alloc(void) {
  int *numbers = dsm_alloc(64 * sizeof *numbers); /* the same 64 zeroes in every rank */
  EXPECT(numbers != NULL);
  numbers[DSM_NODE_ID] = DSM_NODE_ID + 1;
  EXPECT(dsm_barrier() == 0);
  EXPECT(numbers[DSM_NODE_NUM - 1] == DSM_NODE_NUM);
}

static void example_dsm_malloc(void) {
  char **text = dsm_alloc(sizeof *text); /* where all ranks find the block that one has made */
  if (DSM_NODE_ID == 0) {
    *text = dsm_malloc(100);
    EXPECT(*text != NULL);
    strcpy(*text, "made by rank 0");
  }
  EXPECT(dsm_barrier() == 0);
  EXPECT(strcmp(*text, "made by rank 0") == 0);
}

static void example_dsm_free(void) {
  size_t half = dsm_size() / 2; /* there is no room for two of this size */
  void **block = dsm_alloc(sizeof *block);
  if (DSM_NODE_ID == 0) *block = dsm_malloc(half);
  EXPECT(dsm_barrier() == 0 && *block != NULL);
  if (DSM_NODE_ID != DSM_NODE_NUM - 1) return;
  dsm_free(*block); /* any rank may */
  *block = dsm_malloc(half);
  EXPECT(*block != NULL);
  dsm_free(*block);
}

static int fill_with(void *block, void *context) {
  memcpy(block, context, sizeof(int));
  return 0;
}

static void example_dsm_named(void) {
  int seven = 7;
  int *number = dsm_named("a number", sizeof *number, fill_with, &seven); /* filled by the first to come */
  EXPECT(number != NULL && *number == 7);
  EXPECT(dsm_named("a number", sizeof *number, NULL, NULL) == number);
  EXPECT(dsm_named("a number", 100, NULL, NULL) == NULL && errno == EEXIST);
}

static void example_dsm_barrier(void) {
  int *answer = dsm_alloc(sizeof *answer);
  if (DSM_NODE_ID == DSM_NODE_NUM - 1) *answer = 42;
  EXPECT(dsm_barrier() == 0);
  EXPECT(*answer == 42); /* in every rank: the barrier has waited for the last one's store */
}

/* ---- locks ---- */

static void example_dsm_lock(void) {
  int *counter = dsm_alloc(sizeof *counter);
  for (int i = 0; i < 10; ++i) {
    EXPECT(dsm_lock(1) == 0); /* the number stands for the counter, because the program says so */
    ++*counter;
    EXPECT(dsm_unlock(1) == 0);
  }
  EXPECT(dsm_barrier() == 0);
  EXPECT(*counter == 10 * DSM_NODE_NUM);
}

static void example_dsm_trylock(void) {
  if (DSM_NODE_ID == 0) EXPECT(dsm_trylock(2) == 0);
  EXPECT(dsm_barrier() == 0);
  EXPECT(dsm_trylock(2) == -1 && errno == EBUSY); /* rank 0 has it: do something else */
  EXPECT(dsm_barrier() == 0);
  if (DSM_NODE_ID == 0) EXPECT(dsm_unlock(2) == 0);
}

static void example_dsm_unlock(void) {
  EXPECT(dsm_lock(3) == 0);
  EXPECT(dsm_unlock(3) == 0); /* the next one's */
  EXPECT(dsm_unlock(3) == -1 && errno == EPERM);
}

static void example_dsm_lock_at(void) {
  int *counter = dsm_alloc(sizeof *counter);
  for (int i = 0; i < 10; ++i) {
    EXPECT(dsm_lock_at(counter) == 0); /* the counter's address is the lock's name */
    ++*counter;
    EXPECT(dsm_unlock_at(counter) == 0);
  }
  EXPECT(dsm_barrier() == 0);
  EXPECT(*counter == 10 * DSM_NODE_NUM);
}

static void example_dsm_trylock_at(void) {
  int *counter = dsm_alloc(sizeof *counter);
  if (DSM_NODE_ID == 0) EXPECT(dsm_trylock_at(counter) == 0);
  EXPECT(dsm_barrier() == 0);
  EXPECT(dsm_trylock_at(counter) == -1 && errno == EBUSY);
  EXPECT(dsm_barrier() == 0);
  if (DSM_NODE_ID == 0) EXPECT(dsm_unlock_at(counter) == 0);
}

static void example_dsm_unlock_at(void) {
  int elsewhere = 0, *here = dsm_alloc(sizeof *here);
  EXPECT(dsm_lock_at(here) == 0);
  EXPECT(dsm_unlock_at(here) == 0);
  EXPECT(dsm_unlock_at(&elsewhere) == -1 && errno == EINVAL); /* not in the region */
}

/* ---- condition variables ---- */

struct mailbox {
  int letters, filled; /* `filled` is never written: its address names the condition */
};

/* Rank 0 has the lock before the others can put their letters in, so it must wait for them. */
static void example_dsm_cond_wait_at(void) {
  struct mailbox *box = dsm_alloc(sizeof *box);
  if (DSM_NODE_ID == 0) EXPECT(dsm_lock_at(box) == 0);
  EXPECT(dsm_barrier() == 0);
  if (DSM_NODE_ID != 0) EXPECT(dsm_lock_at(box) == 0);
  if (DSM_NODE_ID != 0) ++box->letters;
  while (DSM_NODE_ID == 0 && box->letters < DSM_NODE_NUM - 1) EXPECT(dsm_cond_wait_at(&box->filled, box) == 0);
  EXPECT(dsm_unlock_at(box) == 0);
  EXPECT(dsm_cond_signal_at(&box->filled) == 0);
}

/* Each rank puts a letter in and wakes whoever waits: only rank 0 does. */
static void example_dsm_cond_signal_at(void) {
  struct mailbox *box = dsm_alloc(sizeof *box);
  EXPECT(dsm_lock_at(box) == 0);
  ++box->letters;
  EXPECT(dsm_cond_signal_at(&box->filled) == 0);
  while (DSM_NODE_ID == 0 && box->letters < DSM_NODE_NUM) EXPECT(dsm_cond_wait_at(&box->filled, box) == 0);
  EXPECT(dsm_unlock_at(box) == 0);
}

/* Who comes last opens the gate for all. */
static void example_dsm_cond_broadcast_at(void) {
  struct mailbox *gate = dsm_alloc(sizeof *gate);
  EXPECT(dsm_lock_at(gate) == 0);
  if (++gate->letters == DSM_NODE_NUM) EXPECT(dsm_cond_broadcast_at(&gate->filled) == 0);
  while (gate->letters < DSM_NODE_NUM) EXPECT(dsm_cond_wait_at(&gate->filled, gate) == 0);
  EXPECT(dsm_unlock_at(gate) == 0);
}

/* ---- semaphores ---- */

static void example_dsm_sem_open(void) {
  dsm_sem_t *sem = dsm_sem_open("one at a time", 1); /* the same semaphore in every rank */
  EXPECT(sem != NULL);
  EXPECT(dsm_sem_wait(sem) == 0 && dsm_sem_post(sem) == 0);
  EXPECT(dsm_sem_close(sem) == 0);
}

static void example_dsm_sem_wait(void) {
  dsm_sem_t *ready = dsm_sem_open("ready", 0);
  int *answer = dsm_alloc(sizeof *answer);
  if (DSM_NODE_ID == 0) *answer = 42;
  for (int i = 0; DSM_NODE_ID == 0 && i < DSM_NODE_NUM; ++i) EXPECT(dsm_sem_post(ready) == 0);
  EXPECT(dsm_sem_wait(ready) == 0); /* one of rank 0's posts */
  EXPECT(*answer == 42);
  EXPECT(dsm_sem_close(ready) == 0);
}

static void example_dsm_sem_trywait(void) {
  dsm_sem_t *seat = dsm_sem_open("the only seat", 1);
  uint64_t *seated = dsm_alloc(sizeof *seated);
  if (dsm_sem_trywait(seat) == 0) {
    dsm_fetch_add_u64(seated, 1);
  } else {
    EXPECT(errno == EAGAIN); /* it is 0: do something else */
  }
  EXPECT(dsm_barrier() == 0);
  EXPECT(*seated == 1);
  EXPECT(dsm_sem_close(seat) == 0);
}

static void example_dsm_sem_post(void) {
  dsm_sem_t *done = dsm_sem_open("done", 0);
  EXPECT(dsm_sem_post(done) == 0);
  for (int i = 0; DSM_NODE_ID == 0 && i < DSM_NODE_NUM; ++i) EXPECT(dsm_sem_wait(done) == 0); /* one for each rank */
  EXPECT(dsm_barrier() == 0);
  EXPECT(dsm_sem_trywait(done) == -1 && errno == EAGAIN);
  EXPECT(dsm_sem_close(done) == 0);
}

static void example_dsm_sem_close(void) {
  dsm_sem_t *sem = dsm_sem_open("kept", 0);
  EXPECT(dsm_sem_post(sem) == 0);
  EXPECT(dsm_sem_close(sem) == 0); /* gives back the handle; the semaphore stays, with its value */
  sem = dsm_sem_open("kept", 0);
  EXPECT(dsm_sem_trywait(sem) == 0);
  EXPECT(dsm_sem_close(sem) == 0);
}

/* ---- atomic operations where the page is ---- */

static void example_dsm_fetch_add_u64(void) {
  uint64_t *tickets = dsm_alloc(sizeof *tickets);
  uint64_t mine = dsm_fetch_add_u64(tickets, 1); /* a number that no other rank gets */
  EXPECT(mine < (uint64_t)DSM_NODE_NUM);
  EXPECT(dsm_barrier() == 0);
  EXPECT(*tickets == (uint64_t)DSM_NODE_NUM);
}

static void example_dsm_compare_swap_u64(void) {
  uint64_t *winner = dsm_alloc(sizeof *winner), found = 0, me = (uint64_t)DSM_NODE_ID + 1;
  if (dsm_compare_swap_u64(winner, &found, me) == 0) {
    EXPECT(*winner == me); /* it was 0: this rank came first */
  } else {
    EXPECT(errno == EAGAIN && found == *winner); /* this one did */
  }
}

/* ---- broadcast and reduce ---- */

static void example_dsm_broadcast(void) {
  char text[20] = "";
  if (DSM_NODE_ID == 0) strcpy(text, "said by rank 0");
  EXPECT(dsm_broadcast(0, text, sizeof text) == 0);
  EXPECT(strcmp(text, "said by rank 0") == 0);
}

static void example_dsm_reduce_f64(void) {
  double mine[2] = {0.5, DSM_NODE_ID}, sums[2] = {0, 0};
  EXPECT(dsm_reduce_f64(0, mine, sums, 2, DSM_SUM) == 0);
  if (DSM_NODE_ID == 0) EXPECT(sums[0] == 0.5 * DSM_NODE_NUM && sums[1] == DSM_NODE_NUM * (DSM_NODE_NUM - 1) / 2);
}

static void example_dsm_reduce_i64(void) {
  int64_t mine = -DSM_NODE_ID, least = 0;
  EXPECT(dsm_reduce_i64(0, &mine, &least, 1, DSM_MIN) == 0);
  if (DSM_NODE_ID == 0) EXPECT(least == 1 - DSM_NODE_NUM);
}

/* ---- pages for a system call ---- */

static void example_dsm_pin(void) {
  char *text = dsm_alloc(20);
  int ends[2];
  if (DSM_NODE_ID == 0) text[0] = '?'; /* the page is at rank 0 */
  EXPECT(dsm_barrier() == 0);
  if (DSM_NODE_ID == DSM_NODE_NUM - 1) {
    EXPECT(pipe(ends) == 0 && write(ends[1], "through a pipe", 15) == 15);
    EXPECT(dsm_pin(text, 20, 1) == 0); /* without it, read fails with EFAULT */
    EXPECT(read(ends[0], text, 20) == 15);
    EXPECT(dsm_unpin(text, 20) == 0);
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
  }
  EXPECT(dsm_barrier() == 0);
  EXPECT(strcmp(text, "through a pipe") == 0);
}

static void example_dsm_unpin(void) {
  atomic_int *number = dsm_alloc(sizeof *number);
  int ends[2];
  EXPECT(pipe(ends) == 0);
  EXPECT(dsm_pin(number, sizeof *number, 0) == 0); /* to read it: 0 */
  EXPECT(write(ends[1], number, sizeof *number) == sizeof *number);
  EXPECT(dsm_unpin(number, sizeof *number) == 0); /* from here on others may write to it at once */
  EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
  atomic_fetch_add(number, 1);
  EXPECT(dsm_barrier() == 0);
  EXPECT(atomic_load(number) == DSM_NODE_NUM);
}

int main(int argc, char **argv) {
  example_dsm_join();
  example_dsm_init(argc, argv);
  example_dsm_size();
  example_dsm_page_size();
  example_dsm_stats();
  example_dsm_alloc();
  example_dsm_malloc();
  example_dsm_free();
  example_dsm_named();
  example_dsm_barrier();
  example_dsm_lock();
  example_dsm_trylock();
  example_dsm_unlock();
  example_dsm_lock_at();
  example_dsm_trylock_at();
  example_dsm_unlock_at();
  example_dsm_cond_wait_at();
  example_dsm_cond_signal_at();
  example_dsm_cond_broadcast_at();
  example_dsm_sem_open();
  example_dsm_sem_wait();
  example_dsm_sem_trywait();
  example_dsm_sem_post();
  example_dsm_sem_close();
  example_dsm_fetch_add_u64();
  example_dsm_compare_swap_u64();
  example_dsm_broadcast();
  example_dsm_reduce_f64();
  example_dsm_reduce_i64();
  example_dsm_pin();
  example_dsm_unpin();
  example_dsm_finalize();
  if (DSM_NODE_ID == 0) puts("calls_c: OK");
  return 0;
}
