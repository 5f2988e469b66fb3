// calls - one short example for each class and member function of dsm/dsm.hpp, to be pasted. The same for C: calls_c.c.
//
// All ranks call all examples, in this order. EXPECT says what each has done; where it is not so, the job fails.
//
//   $ build/bin/dsmc++ dsm/examples/calls.cpp -o calls
//   $ build/bin/dsmexec machine_file ./calls
//   [Proc 0 : localhost : stdout] calls: OK
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dsm/dsm.hpp>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#define EXPECT(what) ((what) ? (void)0 : fail(__LINE__, #what))

namespace {

void fail(int line, const char* what) {
  std::fprintf(stderr, "calls.cpp:%d: rank %d: not so: %s\n", line, DSM_NODE_ID, what);
  std::exit(1);
}

// What the examples of locks and condition variables share: from job.alloc, so all zeroes to begin with.
struct Box {
  dsm::Mutex mutex;
  dsm::ConditionVariable changed;
  int letters;
};

// ---- dsm::Job: the others are called in its scope, below ----

void example_job_rank(dsm::Job& job) {
  int& written = job.alloc<int>(1).front();
  if (job.rank() == 0) ++written;  // what is to be done once
  job.barrier();
  EXPECT(written == 1);
}

void example_job_size(dsm::Job& job) {
  const auto done = job.alloc<bool>(1000);
  const auto rank = static_cast<std::size_t>(job.rank()), size = static_cast<std::size_t>(job.size());
  for (std::size_t i = rank; i < done.size(); i += size) done[i] = true;  // in turns
  job.barrier();
  EXPECT(std::count(done.begin(), done.end(), true) == 1000);
}

void example_job_page_size(dsm::Job& job) {
  const auto two_pages = job.alloc<char>(2 * job.page_size());
  const auto second = two_pages.last(job.page_size());  // who writes here does not take the first page from anybody
  EXPECT(reinterpret_cast<std::uintptr_t>(second.data()) % job.page_size() == 0);
}

void example_job_alloc(dsm::Job& job) {
  const auto numbers = job.alloc<int>(64);  // the same 64 zeroes in every rank
  const auto rank = static_cast<std::size_t>(job.rank());
  numbers[rank] = job.rank() + 1;
  job.barrier();
  EXPECT(numbers[static_cast<std::size_t>(job.size()) - 1] == job.size());
}

void example_job_find_or_construct(dsm::Job& job) {
  using Ages = std::map<int, int, std::less<>, dsm::Allocator<std::pair<const int, int>>>;
  Ages& ages = *job.find_or_construct<Ages>("ages")();  // the same object in every rank
  dsm::Mutex& mutex = job.alloc<dsm::Mutex>(1).front();
  {
    const std::scoped_lock lock(mutex);
    ages[job.rank()] = 20 + job.rank();
  }
  job.barrier();
  EXPECT(ages.size() == static_cast<std::size_t>(job.size()) && ages.at(0) == 20);
}

void example_job_barrier(dsm::Job& job) {
  int& answer = job.alloc<int>(1).front();
  if (job.rank() == job.size() - 1) answer = 42;
  job.barrier();
  EXPECT(answer == 42);  // in every rank: the barrier has waited for the last one's store
}

// ---- memory for objects ----

void example_constructor(dsm::Job& job) {
  using Pair = std::pair<int, int>;
  dsm::Constructor<Pair> pair_named = job.find_or_construct<Pair>("a pair");
  const Pair* const pair = pair_named(3, 4);  // constructed by the first to come; found, as it is, by the others
  EXPECT(pair->first == 3 && pair->second == 4);
}

void example_allocator(dsm::Job& job) {
  using Numbers = std::vector<int, dsm::Allocator<int>>;
  Numbers& numbers = *job.find_or_construct<Numbers>("numbers")(100U, 7);  // its elements, too, are in the region
  EXPECT(numbers.size() == 100 && numbers.back() == 7);
}

void example_allocator_allocate(dsm::Job&) {
  bool refused = false;
  try {
    (void)dsm::Allocator<char>().allocate(dsm_size());  // containers call it; so they throw that, too
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  EXPECT(refused);
}

void example_allocator_deallocate(dsm::Job&) {
  dsm::Allocator<double> allocator;
  double* const block = allocator.allocate(100);
  block[99] = 0.5;
  allocator.deallocate(block, 100);
}

void example_string(dsm::Job& job) {
  const dsm::String& text = *job.find_or_construct<dsm::String>("a text")("too long for the string object itself");
  job.barrier();
  EXPECT(text == "too long for the string object itself");  // whoever constructed it
}

void example_error(dsm::Job& job) {
  job.find_or_construct<char>("one byte")();
  std::string message;
  try {
    job.find_or_construct<double>("one byte")();  // the name is that of something else
  } catch (const dsm::Error& error) {
    message = error.what();
  }
  EXPECT(message.find("one byte") != std::string::npos);
}

// ---- locks ----

void example_mutex(dsm::Job& job) {
  struct Counter {
    dsm::Mutex mutex;
    int value;
  };
  Counter& counter = job.alloc<Counter>(1).front();  // free, and 0
  for (int i = 0; i < 10; ++i) {
    const std::scoped_lock lock(counter.mutex);  // till the end of this scope
    ++counter.value;
  }
  job.barrier();
  EXPECT(counter.value == 10 * job.size());
}

void example_mutex_lock(dsm::Job& job) {
  Box& box = job.alloc<Box>(1).front();
  box.mutex.lock();  // std::scoped_lock does it
  ++box.letters;
  box.mutex.unlock();
  job.barrier();
  EXPECT(box.letters == job.size());
}

void example_mutex_try_lock(dsm::Job& job) {
  Box& box = job.alloc<Box>(1).front();
  if (job.rank() == 0) EXPECT(box.mutex.try_lock());
  job.barrier();
  EXPECT(!box.mutex.try_lock());  // rank 0 has it: do something else
  job.barrier();
  if (job.rank() == 0) box.mutex.unlock();
}

void example_mutex_unlock(dsm::Job& job) {
  Box& box = job.alloc<Box>(1).front();
  box.mutex.lock();
  box.mutex.unlock();
  std::error_code why;
  try {
    box.mutex.unlock();  // not held any more
  } catch (const std::system_error& error) {
    why = error.code();
  }
  EXPECT(why == std::errc::operation_not_permitted);
}

// ---- condition variables ----

// Who comes last opens the gate for all.
void example_condition_variable(dsm::Job& job) {
  struct Gate {
    dsm::Mutex mutex;
    dsm::ConditionVariable all_are_here;
    int arrived;
  };
  Gate& gate = job.alloc<Gate>(1).front();
  std::unique_lock lock(gate.mutex);
  if (++gate.arrived == job.size()) gate.all_are_here.notify_all();
  gate.all_are_here.wait(lock, [&] { return gate.arrived == job.size(); });
  EXPECT(lock.owns_lock());
}

// Rank 0 has the lock before the others can put their letters in, so it must wait for them.
void example_condition_variable_wait(dsm::Job& job) {
  Box& box = job.alloc<Box>(1).front();
  std::unique_lock lock(box.mutex, std::defer_lock);
  if (job.rank() == 0) lock.lock();
  job.barrier();
  if (job.rank() != 0) lock.lock();
  if (job.rank() != 0) ++box.letters;
  while (job.rank() == 0 && box.letters < job.size() - 1) box.changed.wait(lock);
  box.changed.notify_one();
}

// Each rank puts a letter in and wakes whoever waits: only rank 0 does.
void example_condition_variable_notify_one(dsm::Job& job) {
  Box& box = job.alloc<Box>(1).front();
  std::unique_lock lock(box.mutex);
  ++box.letters;
  box.changed.notify_one();
  if (job.rank() == 0) box.changed.wait(lock, [&] { return box.letters == job.size(); });
}

// Each in its turn: who is next, only he knows, so all are woken.
void example_condition_variable_notify_all(dsm::Job& job) {
  Box& box = job.alloc<Box>(1).front();
  std::unique_lock lock(box.mutex);
  box.changed.wait(lock, [&] { return box.letters == job.rank(); });
  ++box.letters;
  box.changed.notify_all();
}

// ---- semaphores ----

void example_semaphore(dsm::Job& job) {
  dsm::Semaphore one("one at a time", 1);  // the same semaphore in every rank
  int& counter = job.alloc<int>(1).front();
  one.acquire();
  ++counter;
  one.release();
  job.barrier();
  EXPECT(counter == job.size());
}

void example_semaphore_acquire(dsm::Job& job) {
  dsm::Semaphore ready("ready", 0);
  int& answer = job.alloc<int>(1).front();
  if (job.rank() == 0) answer = 42;
  for (int i = 0; job.rank() == 0 && i < job.size(); ++i) ready.release();
  ready.acquire();  // one of rank 0's
  EXPECT(answer == 42);
}

void example_semaphore_try_acquire(dsm::Job& job) {
  dsm::Semaphore seat("the only seat", 1);
  std::uint64_t& seated = job.alloc<std::uint64_t>(1).front();
  if (seat.try_acquire()) dsm_fetch_add_u64(&seated, 1);
  job.barrier();
  EXPECT(seated == 1);
}

void example_semaphore_release(dsm::Job& job) {
  dsm::Semaphore done("done", 0);
  done.release();
  for (int i = 0; job.rank() == 0 && i < job.size(); ++i) done.acquire();  // one for each rank
  job.barrier();
  EXPECT(!done.try_acquire());
}

void call_all(dsm::Job& job) {
  example_job_rank(job);
  example_job_size(job);
  example_job_page_size(job);
  example_job_alloc(job);
  example_job_find_or_construct(job);
  example_job_barrier(job);
  example_constructor(job);
  example_allocator(job);
  example_allocator_allocate(job);
  example_allocator_deallocate(job);
  example_string(job);
  example_error(job);
  example_mutex(job);
  example_mutex_lock(job);
  example_mutex_try_lock(job);
  example_mutex_unlock(job);
  example_condition_variable(job);
  example_condition_variable_wait(job);
  example_condition_variable_notify_one(job);
  example_condition_variable_notify_all(job);
  example_semaphore(job);
  example_semaphore_acquire(job);
  example_semaphore_try_acquire(job);
  example_semaphore_release(job);
}

void example_job(int argc, char** argv) {
  dsm::Job job(argc, argv);  // joins
  call_all(job);
}  // leaves, when all ranks have come

}  // namespace

int main(int argc, char** argv) {
  try {
    example_job(argc, argv);
  } catch (const std::exception& error) {  // the job did not come about
    std::fprintf(stderr, "calls: %s\n", error.what());
    return 1;
  }
  EXPECT(dsm_size() == 0);  // the region is gone
  if (DSM_NODE_ID == 0) std::puts("calls: OK");
}
