#include "dsm/tests/dshm_scripts.hpp"

namespace dsm::dshm::testing {

Script perl_rounds() {
  return {"perl, shmread and shmwrite", {"perl", "-e", R"(
use strict; use warnings; use IPC::SysV qw(IPC_CREAT IPC_EXCL IPC_RMID); use Digest::MD5 qw(md5_hex);
$| = 1; alarm 60;
my ($role, $key, $rounds) = @ARGV;
my $id = shmget($key, 4096, $role ? 0 : IPC_CREAT | IPC_EXCL | 0600);
defined $id or die "shmget: $!\n";
print "ready\n";
for my $round (1 .. $rounds) {
  my $number = sprintf '%08d', $round;
  if ($round % 2 != $role) {
    my $text = join '', map { chr int rand 256 } 1 .. 1000;
    shmwrite($id, md5_hex($text) . $text, 8, 1032) && shmwrite($id, $number, 0, 8) or die "shmwrite: $!\n";
  } else {
    my ($seen, $sum, $text) = ('', '', '');
    while (shmread($id, $seen, 0, 8) ? $seen ne $number : die "shmread: $!\n") { select undef, undef, undef, 0.0005 }
    shmread($id, $sum, 8, 32) && shmread($id, $text, 40, 1000) or die "shmread: $!\n";
    md5_hex($text) eq $sum or die "round $round: wrong checksum\n";
  }
}
print "$rounds rounds\n";
shmctl($id, IPC_RMID, 0) or die "IPC_RMID: $!\n" if $role == 0;
)"}};
}

Script perl_object_rounds() {
  return {"perl, IPC::SharedMem", {"perl", "-e", R"(
use strict; use warnings; use IPC::SysV qw(IPC_CREAT IPC_EXCL); use IPC::SharedMem; use Digest::MD5 qw(md5_hex);
$| = 1; alarm 60;
my ($role, $key, $rounds) = @ARGV;
my $memory = IPC::SharedMem->new($key, 4096, $role ? 0 : IPC_CREAT | IPC_EXCL | 0600) or die "IPC::SharedMem: $!\n";
$memory->attach or die "attach: $!\n";
print "ready\n";
for my $round (1 .. $rounds) {
  my $number = sprintf '%08d', $round;
  if ($round % 2 != $role) {
    my $text = join '', map { chr int rand 256 } 1 .. 1000;
    $memory->write(md5_hex($text) . $text, 8, 1032) && $memory->write($number, 0, 8) or die "write: $!\n";
  } else {
    select undef, undef, undef, 0.0005 while $memory->read(0, 8) ne $number;
    md5_hex($memory->read(40, 1000)) eq $memory->read(8, 32) or die "round $round: wrong checksum\n";
  }
}
$memory->detach or die "detach: $!\n";
print "$rounds rounds\n";
$memory->remove or die "remove: $!\n" if $role == 0;
)"}};
}

Script php_rounds() {
  return {"php, shmop",
          {"php", "-r", R"(
error_reporting(E_ALL); set_time_limit(60);
[, $role, $key, $rounds] = $argv;
$memory = shmop_open((int)$key, $role ? 'w' : 'n', $role ? 0 : 0600, $role ? 0 : 4096) or exit(1);
echo "ready\n";
for ($round = 1; $round <= $rounds; ++$round) {
  $number = sprintf('%08d', $round);
  if ($round % 2 != $role) {
    $text = random_bytes(1000);
    shmop_write($memory, md5($text) . $text, 8);
    shmop_write($memory, $number, 0);
  } else {
    while (shmop_read($memory, 0, 8) !== $number) usleep(500);
    if (md5(shmop_read($memory, 40, 1000)) !== shmop_read($memory, 8, 32)) exit("round $round: wrong checksum\n");
  }
}
echo "$rounds rounds\n";
if ($role == 0) shmop_delete($memory);
)",
           "--"}};
}

Script python_rounds() {
  return {"python, sysv_ipc", {"/usr/bin/python3", "-c", R"(
import hashlib, os, signal, sys, time, sysv_ipc
signal.alarm(60)
role, key, rounds = map(int, sys.argv[1:])
memory = sysv_ipc.SharedMemory(key) if role else sysv_ipc.SharedMemory(key, sysv_ipc.IPC_CREX, mode=0o600, size=4096)
print('ready', flush=True)
md5 = lambda text: hashlib.md5(text).hexdigest().encode()
for round in range(1, rounds + 1):
    number = b'%08d' % round
    if round % 2 != role:
        text = os.urandom(1000)
        memory.write(md5(text) + text, 8)
        memory.write(number, 0)
    else:
        while memory.read(8, 0) != number: time.sleep(0.0005)
        if md5(memory.read(1000, 40)) != memory.read(32, 8): sys.exit('round %d: wrong checksum' % round)
memory.detach()
print(rounds, 'rounds')
if role == 0: memory.remove()
)"}};
}

Script perl_adding() {
  return {"perl, semop", {"perl", "-e", R"(
use strict; use warnings; use IPC::SysV qw(IPC_CREAT IPC_EXCL IPC_RMID SETVAL SEM_UNDO);
$| = 1; alarm 60;
my ($role, $key, $count) = @ARGV;
my $flags = $role ? 0 : IPC_CREAT | IPC_EXCL | 0600;
my $memory = shmget($key, 16, $flags); my $lock = semget($key, 1, $flags);
defined $memory && defined $lock or die "shmget, semget: $!\n";
unless ($role) {
  shmwrite($memory, '0' x 16, 0, 16) && semctl($lock, 0, SETVAL, 1) or die "SETVAL: $!\n";
}
print "ready\n";
sub change { semop($lock, pack 's!3', 0, $_[0], SEM_UNDO) or die "semop: $!\n" }
sub add { my ($at, $seen) = @_; change(-1); shmread($memory, $seen, $at, 8); shmwrite($memory, sprintf('%08d', $seen + 1), $at, 8); change(1) }
add(0) for 1 .. $count;
add(8);
exit if $role;
my $done = '';
while (shmread($memory, $done, 8, 8) && $done < 2) { select undef, undef, undef, 0.0005 }
shmread($memory, $done, 0, 8);
print $done + 0, "\n";
shmctl($memory, IPC_RMID, 0) && semctl($lock, 0, IPC_RMID, 0) or die "IPC_RMID: $!\n";
)"}};
}

Script php_adding() {
  return {"php, sem_acquire",
          {"php", "-r", R"(
error_reporting(E_ALL); set_time_limit(60);
[, $role, $key, $count] = $argv;
$memory = shmop_open((int)$key, $role ? 'w' : 'n', $role ? 0 : 0600, $role ? 0 : 16) or exit(1);
$lock = sem_get((int)$key, 1, 0600) or exit(1);
if (!$role) shmop_write($memory, str_repeat('0', 16), 0);
echo "ready\n";
function add($at) {
  global $memory, $lock;
  sem_acquire($lock) or exit(1);
  shmop_write($memory, sprintf('%08d', (int)shmop_read($memory, $at, 8) + 1), $at);
  sem_release($lock) or exit(1);
}
for ($i = 0; $i < $count; ++$i) add(0);
add(8);
if ($role) exit;
while ((int)shmop_read($memory, 8, 8) < 2) usleep(500);
echo (int)shmop_read($memory, 0, 8), "\n";
shmop_delete($memory);
sem_remove($lock) or exit(1);
)",
           "--"}};
}

Script python_adding() {
  return {"python, sysv_ipc.Semaphore", {"/usr/bin/python3", "-c", R"(
import signal, sys, time, sysv_ipc
signal.alarm(60)
role, key, count = map(int, sys.argv[1:])
if role:
    memory, lock = sysv_ipc.SharedMemory(key), sysv_ipc.Semaphore(key)
else:
    memory = sysv_ipc.SharedMemory(key, sysv_ipc.IPC_CREX, mode=0o600, size=16)
    memory.write(b'0' * 16)
    lock = sysv_ipc.Semaphore(key, sysv_ipc.IPC_CREX, mode=0o600, initial_value=1)
lock.undo = True
print('ready', flush=True)
def add(at):
    with lock: memory.write(b'%08d' % (int(memory.read(8, at)) + 1), at)
for i in range(count): add(0)
add(8)
if role: sys.exit()
while int(memory.read(8, 8)) < 2: time.sleep(0.0005)
print(int(memory.read(8, 0)))
memory.detach()
memory.remove()
lock.remove()
)"}};
}

}  // namespace dsm::dshm::testing
