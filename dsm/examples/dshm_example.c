/* dshm_example - System V shared memory and semaphores: each call, with each of its flags, in a few lines to be pasted.
 *
 * Plain System V, nothing of ours: the kernel runs it, and, unchanged, a dsmd does, for many machines. EXPECT says what each
 * call has done; where it is not so, the program fails. Both print the same:
 *
 *   $ build/bin/dshm_example
 *   $ build/bin/dsmd & build/bin/dshmrun build/bin/dshm_example
 *   shmget: OK
 *   ...
 *
 * Left out is SHM_HUGETLB: what it does depends on how many huge pages the machine keeps.
 *
 * Read: sysvipc(7), shmget(2), shmop(2), shmctl(2), semget(2), semop(2), semctl(2).
 */
#define _GNU_SOURCE /* of SHM_STAT, SHM_EXEC and their like, and of semtimedop */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPECT(what) ((what) ? (void)0 : fail(__LINE__, #what))
#define FAILED ((void *)-1) /* what shmat returns then; not NULL */

/* semctl's fourth argument. "Must be defined by the calling program": semctl(2). */
union semun {
  int val;
  struct semid_ds *buf;
  unsigned short *array;
  struct seminfo *info;
};

/* A key stands for an object as a path does for a file. This one is nobody else's on this machine, but two programs that
 * are to meet would agree on a number, or on a file for ftok(3), which both must then see as the same file. */
static key_t key;

static void fail(int line, const char *what) {
  fprintf(stderr, "dshm_example.c:%d: not so: %s (errno: %s)\n", line, what, strerror(errno));
  exit(1);
}

/* A child that runs `body` and exits with what that returns: how it ended, as wait(2) has it. */
static int in_child(int (*body)(int), int id) {
  int status = 0;
  pid_t child = fork();
  EXPECT(child != -1);
  if (child == 0) _exit(body(id));
  EXPECT(waitpid(child, &status, 0) == child);
  return status;
}

static struct shmid_ds stat_of(int id) {
  struct shmid_ds stat;
  EXPECT(shmctl(id, IPC_STAT, &stat) == 0);
  return stat;
}

/* ---- shmget ---- */

static void example_IPC_CREAT(void) {
  int id = shmget(key, 5000, IPC_CREAT | 0600); /* made, if it is not there; the low nine bits: who may do what */
  EXPECT(id != -1);
  EXPECT(shmget(key, 5000, IPC_CREAT | 0600) == id);          /* found, as it is there */
  EXPECT(shmget(key, 0, 0) == id);                            /* found, whatever its size; never made */
  EXPECT(shmget(key, 5001, 0) == -1 && errno == EINVAL);      /* it is smaller than that */
  EXPECT(stat_of(id).shm_segsz == 5000);                      /* exact, though memory comes in pages */
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);                    /* nothing else removes it: not even our end */
  EXPECT(shmget(key, 0, 0) == -1 && errno == ENOENT);         /* gone, as nobody has it attached */
  EXPECT(shmget(key, 0, IPC_CREAT) == -1 && errno == EINVAL); /* nothing can be made of no bytes */
}

static void example_IPC_EXCL(void) {
  int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600); /* made, or it fails: who gets the id is the first */
  EXPECT(id != -1);
  EXPECT(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600) == -1 && errno == EEXIST);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

static void example_IPC_PRIVATE(void) {
  int one = shmget(IPC_PRIVATE, 4096, 0600), other = shmget(IPC_PRIVATE, 4096, 0600); /* new ones; no key finds them */
  EXPECT(one != -1 && other != -1 && one != other);
  EXPECT(shmctl(one, IPC_RMID, NULL) == 0 && shmctl(other, IPC_RMID, NULL) == 0);
}

static void example_SHM_NORESERVE(void) {
  int id = shmget(IPC_PRIVATE, (size_t)1 << 30, SHM_NORESERVE | 0600); /* room for a gigabyte is not set aside */
  EXPECT(id != -1);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

/* ---- shmat, shmdt ---- */

static void example_shmat(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  char *here = shmat(id, NULL, 0), *there = shmat(id, NULL, 0); /* the kernel finds room; twice is as good as once */
  EXPECT(here != FAILED && there != FAILED && here != there);
  EXPECT(here[0] == 0 && here[4095] == 0); /* a new segment is all zero */
  strcpy(here, "said here");
  EXPECT(strcmp(there, "said here") == 0);
  EXPECT(stat_of(id).shm_nattch == 2);
  EXPECT(shmdt(there) == 0);
  EXPECT(shmdt(there) == -1 && errno == EINVAL);    /* nothing is attached there any more */
  EXPECT(shmdt(here + 1) == -1 && errno == EINVAL); /* nothing begins there */
  EXPECT(shmdt(here) == 0 && stat_of(id).shm_nattch == 0);
  here = shmat(id, NULL, 0);
  EXPECT(strcmp(here, "said here") == 0); /* what was written stays as long as the segment does */
  EXPECT(shmdt(here) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
  EXPECT(shmat(id, NULL, 0) == FAILED && errno == EINVAL);
}

/* An address that is free: something was mapped there. SHMLBA is what it must be a multiple of. */
static char *free_address(void) {
  size_t unit = (size_t)SHMLBA;
  char *at = mmap(NULL, 3 * unit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(at != MAP_FAILED && munmap(at, 3 * unit) == 0);
  return (char *)(((uintptr_t)at + unit - 1) / unit * unit);
}

static void example_SHM_RND(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  char *at = free_address();
  EXPECT(shmat(id, at + 100, 0) == FAILED && errno == EINVAL);
  EXPECT(shmat(id, at + 100, SHM_RND) == at);            /* rounded down to a multiple of SHMLBA */
  EXPECT(shmat(id, at, 0) == FAILED && errno == EINVAL); /* now something is there */
  EXPECT(shmdt(at) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
}

static void example_SHM_REMAP(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600), other = shmget(IPC_PRIVATE, 4096, 0600);
  char *at = shmat(id, NULL, 0);
  EXPECT(at != FAILED);
  EXPECT(shmat(other, at, SHM_REMAP) == at); /* in place of what was there: which is a detach of that */
  EXPECT(stat_of(id).shm_nattch == 0 && stat_of(other).shm_nattch == 1);
  EXPECT(shmat(other, NULL, SHM_REMAP) == FAILED && errno == EINVAL); /* in place of what? */
  EXPECT(shmdt(at) == 0 && shmctl(id, IPC_RMID, NULL) == 0 && shmctl(other, IPC_RMID, NULL) == 0);
}

static int write_to(int id) {
  char *text = shmat(id, NULL, SHM_RDONLY);
  struct rlimit no_core = {0, 0};
  if (text == FAILED || setrlimit(RLIMIT_CORE, &no_core) != 0) return 1;
  signal(SIGSEGV, SIG_DFL);
  *(volatile char *)text = '!';
  return 2;
}

static void example_SHM_RDONLY(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600), status = 0;
  char *text = shmat(id, NULL, 0), *seen = shmat(id, NULL, SHM_RDONLY);
  EXPECT(text != FAILED && seen != FAILED);
  strcpy(text, "new");
  EXPECT(strcmp(seen, "new") == 0); /* a look at the same memory, not at a copy */
  EXPECT(mprotect(seen, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
  status = in_child(write_to, id);
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  EXPECT(shmdt(text) == 0 && shmdt(seen) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
}

static void example_SHM_EXEC(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0700); /* the owner's x */
  char *code = shmat(id, NULL, SHM_EXEC);   /* what is put there may be executed */
  EXPECT(code != FAILED);
  EXPECT(shmdt(code) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
}

static int use_inherited(int id) { return stat_of(id).shm_nattch == 2 ? 0 : 1; /* the parent's attach and ours */ }

/* fork(2) passes attaches on to the child; exec and exit end them. */
static void example_fork(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  char *text = shmat(id, NULL, 0);
  EXPECT(text != FAILED);
  EXPECT(in_child(use_inherited, id) == 0);
  EXPECT(stat_of(id).shm_nattch == 1);
  EXPECT(shmdt(text) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
}

/* ---- shmctl ---- */

static void example_IPC_STAT(void) {
  int id = shmget(key, 6000, IPC_CREAT | IPC_EXCL | 0640);
  struct shmid_ds stat = stat_of(id);
  EXPECT(stat.shm_perm.__key == key && (stat.shm_perm.mode & 0777) == 0640 && stat.shm_segsz == 6000);
  EXPECT(stat.shm_perm.uid == geteuid() && stat.shm_perm.cgid == getegid()); /* owner and creator: who made it */
  EXPECT(stat.shm_cpid == getpid() && stat.shm_lpid == 0);                   /* who made it, who used it last */
  EXPECT(stat.shm_atime == 0 && stat.shm_dtime == 0 && stat.shm_ctime >= time(NULL) - 60);
  EXPECT(shmdt(shmat(id, NULL, 0)) == 0);
  stat = stat_of(id);
  EXPECT(stat.shm_lpid == getpid() && stat.shm_atime != 0 && stat.shm_dtime != 0);
  EXPECT(shmctl(id, IPC_STAT, (struct shmid_ds *)1) == -1 && errno == EFAULT);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
  EXPECT(shmctl(id, IPC_STAT, &stat) == -1 && errno == EINVAL);
}

static void example_IPC_SET(void) {
  int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
  struct shmid_ds stat = stat_of(id);
  stat.shm_perm.mode = 0444; /* the nine bits, uid and gid can be set; the rest of it is not looked at */
  EXPECT(shmctl(id, IPC_SET, &stat) == 0);
  EXPECT((stat_of(id).shm_perm.mode & 0777) == 0444);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0); /* the owner may, whatever the bits say */
}

static void example_IPC_RMID(void) {
  int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), other = -1;
  char *text = shmat(id, NULL, 0), *again = NULL;
  EXPECT(text != FAILED);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0); /* it goes with its last attach */
  EXPECT((stat_of(id).shm_perm.mode & SHM_DEST) != 0 && stat_of(id).shm_perm.__key == IPC_PRIVATE);
  strcpy(text, "still here");
  again = shmat(id, NULL, 0); /* Linux: by its id, as long as somebody has it attached */
  EXPECT(again != FAILED && strcmp(again, "still here") == 0);
  other = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600); /* the key is free again */
  EXPECT(other != -1 && other != id);
  EXPECT(shmdt(text) == 0 && shmdt(again) == 0);
  EXPECT(shmat(id, NULL, 0) == FAILED && errno == EINVAL);
  EXPECT(shmctl(other, IPC_RMID, NULL) == 0);
}

static void example_SHM_LOCK(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  EXPECT(shmctl(id, SHM_LOCK, NULL) == 0); /* it is not swapped out */
  EXPECT((stat_of(id).shm_perm.mode & SHM_LOCKED) != 0);
  EXPECT(shmctl(id, SHM_UNLOCK, NULL) == 0);
  EXPECT((stat_of(id).shm_perm.mode & SHM_LOCKED) == 0);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

static void example_IPC_INFO(void) {
  struct shminfo limits;
  EXPECT(shmctl(0, IPC_INFO, (struct shmid_ds *)&limits) >= 0);
  EXPECT(limits.shmmax >= 4096 && limits.shmmin == 1 && limits.shmmni >= 1); /* bytes of one segment; how many */
}

static void example_SHM_INFO(void) {
  struct shm_info now;
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  EXPECT(shmctl(0, SHM_INFO, (struct shmid_ds *)&now) >= 0); /* the highest index in the table, for the next example */
  EXPECT(now.used_ids >= 1 && now.shm_tot >= 1);             /* segments there are; their pages */
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

/* How ipcs finds all there are. Whoever finds an index empty (EINVAL) takes the next one. */
static void example_SHM_STAT(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600), seen = 0, seen_by_any = 0;
  struct shm_info now;
  struct shmid_ds stat;
  int last = shmctl(0, SHM_INFO, (struct shmid_ds *)&now);
  for (int index = 0; index <= last; ++index) {
    if (shmctl(index, SHM_STAT, &stat) == id) ++seen;            /* those that we may read */
    if (shmctl(index, SHM_STAT_ANY, &stat) == id) ++seen_by_any; /* all: Linux 4.17 */
  }
  EXPECT(seen == 1 && seen_by_any == 1);
  EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

/* ---- semget, semop, semtimedop ---- */

static int change(int id, unsigned short number, int by, int flags) {
  struct sembuf op = {number, (short)by, (short)flags};
  return semop(id, &op, 1);
}

static void example_semget(void) {
  int id = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600); /* a set of three; on Linux all are 0 */
  EXPECT(id != -1);
  EXPECT(semget(key, 3, IPC_CREAT | IPC_EXCL | 0600) == -1 && errno == EEXIST);
  EXPECT(semget(key, 0, 0) == id);
  EXPECT(semget(key, 4, 0) == -1 && errno == EINVAL); /* it has fewer */
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
  EXPECT(semget(key, 0, 0) == -1 && errno == ENOENT);
}

static int add_one(int id) { return change(id, 0, 1, 0); }

static void example_semop(void) {
  int id = semget(IPC_PRIVATE, 2, 0600);
  struct sembuf both[2] = {{0, -1, 0}, {1, -1, 0}};
  EXPECT(change(id, 0, 0, 0) == 0); /* waits until it is 0: it is */
  EXPECT(in_child(add_one, id) == 0);
  EXPECT(change(id, 0, -1, 0) == 0); /* waits until there is so much to take */
  EXPECT(change(id, 0, 1, 0) == 0 && change(id, 1, 1, 0) == 0);
  EXPECT(semop(id, both, 2) == 0); /* both at once, or neither */
  EXPECT(semctl(id, 0, GETVAL) == 0 && semctl(id, 1, GETVAL) == 0);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static void example_IPC_NOWAIT(void) {
  int id = semget(IPC_PRIVATE, 2, 0600);
  struct sembuf both[2] = {{0, 5, 0}, {1, -1, IPC_NOWAIT}};
  EXPECT(change(id, 0, -1, IPC_NOWAIT) == -1 && errno == EAGAIN);
  EXPECT(semop(id, both, 2) == -1 && errno == EAGAIN && semctl(id, 0, GETVAL) == 0); /* the first one neither */
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static int take_and_end(int id) { return change(id, 0, -1, SEM_UNDO); }

static void example_SEM_UNDO(void) {
  int id = semget(IPC_PRIVATE, 1, 0600);
  EXPECT(change(id, 0, 1, 0) == 0);
  EXPECT(in_child(take_and_end, id) == 0); /* however a process ends, its changes with SEM_UNDO end with it */
  EXPECT(semctl(id, 0, GETVAL) == 1);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static void example_semtimedop(void) {
  int id = semget(IPC_PRIVATE, 1, 0600);
  struct sembuf take = {0, -1, 0};
  struct timespec not_longer = {0, 20 * 1000 * 1000};
  EXPECT(semtimedop(id, &take, 1, &not_longer) == -1 && errno == EAGAIN);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

/* ---- semctl ---- */

static void example_SETVAL(void) {
  int id = semget(IPC_PRIVATE, 2, 0600);
  union semun value;
  value.val = 7;
  EXPECT(semctl(id, 1, SETVAL, value) == 0);
  EXPECT(semctl(id, 1, GETVAL) == 7 && semctl(id, 0, GETVAL) == 0);
  value.val = 32768;
  EXPECT(semctl(id, 1, SETVAL, value) == -1 && errno == ERANGE);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static void example_SETALL(void) {
  int id = semget(IPC_PRIVATE, 3, 0600);
  unsigned short values[3] = {1, 2, 3}, seen[3] = {0, 0, 0};
  union semun all;
  all.array = values;
  EXPECT(semctl(id, 0, SETALL, all) == 0);
  all.array = seen;
  EXPECT(semctl(id, 0, GETALL, all) == 0);
  EXPECT(memcmp(values, seen, sizeof values) == 0);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static void example_GETPID(void) {
  int id = semget(IPC_PRIVATE, 1, 0600);
  EXPECT(semctl(id, 0, GETPID) == 0); /* nobody has changed it yet */
  EXPECT(change(id, 0, 1, 0) == 0 && semctl(id, 0, GETPID) == getpid());
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static int wait_for_one(int id) { return change(id, 0, -1, 0); }

/* The child waits; when we see that, we give it what it waits for. */
static void example_GETNCNT(void) {
  int id = semget(IPC_PRIVATE, 1, 0600), status = 1;
  pid_t child = fork();
  EXPECT(child != -1);
  if (child == 0) _exit(wait_for_one(id));
  while (semctl(id, 0, GETNCNT) == 0) usleep(1000); /* so many wait until there is more */
  EXPECT(semctl(id, 0, GETZCNT) == 0);              /* and so many until it is 0 */
  EXPECT(change(id, 0, 1, 0) == 0);
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

static void example_sem_IPC_STAT(void) {
  int id = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600);
  struct semid_ds stat;
  union semun to;
  to.buf = &stat;
  EXPECT(semctl(id, 0, IPC_STAT, to) == 0);
  EXPECT(stat.sem_nsems == 3 && stat.sem_perm.__key == key && stat.sem_otime == 0);
  stat.sem_perm.mode = 0644;
  EXPECT(semctl(id, 0, IPC_SET, to) == 0 && semctl(id, 0, IPC_STAT, to) == 0);
  EXPECT((stat.sem_perm.mode & 0777) == 0644);
  EXPECT(semctl(id, 0, IPC_RMID) == 0); /* at once; whoever waits gets EIDRM */
  EXPECT(semctl(id, 0, IPC_STAT, to) == -1 && errno == EINVAL);
}

static void example_SEM_STAT(void) {
  int id = semget(IPC_PRIVATE, 3, 0600), seen = 0, seen_by_any = 0;
  struct seminfo limits;
  struct semid_ds stat;
  union semun to;
  to.info = &limits;
  EXPECT(semctl(0, 0, IPC_INFO, to) >= 0 && limits.semmsl >= 3 && limits.semopm >= 2 && limits.semvmx == 32767);
  int last = semctl(0, 0, SEM_INFO, to);
  for (int index = 0; index <= last; ++index) {
    to.buf = &stat;
    if (semctl(index, 0, SEM_STAT, to) == id) ++seen;
    if (semctl(index, 0, SEM_STAT_ANY, to) == id) ++seen_by_any;
  }
  EXPECT(seen == 1 && seen_by_any == 1);
  EXPECT(semctl(id, 0, IPC_RMID) == 0);
}

int main(void) {
  key = (key_t)(0x45000000u + (unsigned)getpid());
  example_IPC_CREAT();
  example_IPC_EXCL();
  example_IPC_PRIVATE();
  example_SHM_NORESERVE();
  puts("shmget: OK");
  example_shmat();
  example_SHM_RND();
  example_SHM_REMAP();
  example_SHM_RDONLY();
  example_SHM_EXEC();
  example_fork();
  puts("shmat, shmdt: OK");
  example_IPC_STAT();
  example_IPC_SET();
  example_IPC_RMID();
  example_SHM_LOCK();
  example_IPC_INFO();
  example_SHM_INFO();
  example_SHM_STAT();
  puts("shmctl: OK");
  example_semget();
  example_semop();
  example_IPC_NOWAIT();
  example_SEM_UNDO();
  example_semtimedop();
  puts("semget, semop, semtimedop: OK");
  example_SETVAL();
  example_SETALL();
  example_GETPID();
  example_GETNCNT();
  example_sem_IPC_STAT();
  example_SEM_STAT();
  puts("semctl: OK");
  return 0;
}
