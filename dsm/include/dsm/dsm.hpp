// dsm/dsm.hpp - the C++ face of <dsm/dsm.h>: shared memory across the processes of a job, wherever they run.
//
//     dsm::Job job(argc, argv);
//     auto table = job.alloc<double>(1000);          // the same 1000 numbers in every rank
//     table[job.rank()] = 1;                         // a page fault brings the page here
//     job.barrier();                                 // now everybody sees what everybody has stored
//     auto* words = job.find_or_construct<std::vector<dsm::String, dsm::Allocator<dsm::String>>>("words")();
//
// Thread-safety: everything may be used by any thread, but what is called collective: all ranks call it, in the same
// order, one thread of each. async-signal-safe: nothing here (touching the memory is). Errors are std::system_error
// with the errno that dsm.h names, std::bad_alloc where there is no room, or dsm::Error.
//
// Every class and function has an example to paste, which the tests run: dsm/examples/calls.cpp.
#ifndef DSM_DSM_HPP
#define DSM_DSM_HPP

#include <dsm/dsm.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

namespace dsm {

namespace detail {
// Result of a function of dsm.h; what is said names the function.
inline void check(int result, const char* what) {
  if (result == -1) throw std::system_error(errno, std::generic_category(), what);
}
}  // namespace detail

// What no errno says. The message says what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Memory of the region for the containers of the standard library: std::map<K, V, std::less<K>,
// dsm::Allocator<std::pair<const K, V>>>. The region has the same addresses everywhere, so every rank can read them,
// if the container itself, too, is in the region (Job::find_or_construct). When several change it: under a Mutex. One
// rank may free what another has made. Not for elements that name something outside the region: pointers to it,
// references, virtual functions, std::string (String is one that does not).
template <class T>
class Allocator {
 public:
  using value_type = T;
  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor): as all allocators convert

  // Throws std::bad_alloc: the region has no room.
  [[nodiscard]] T* allocate(std::size_t count) {
    static_assert(alignof(T) <= 16, "dsm_malloc aligns to 16 bytes");
    static_assert(!std::is_polymorphic_v<T>, "another rank has its virtual functions at another address");
    if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    void* const block = dsm_malloc(count * sizeof(T));
    if (block == nullptr && errno == ENOMEM) throw std::bad_alloc();
    detail::check(block == nullptr ? -1 : 0, "dsm::Allocator (is it used in the scope of dsm::Job?)");
    return static_cast<T*>(block);
  }
  void deallocate(T* block, std::size_t) noexcept { dsm_free(block); }
  template <class U>
  bool operator==(const Allocator<U>&) const noexcept {
    return true;
  }
};

using String = std::basic_string<char, std::char_traits<char>, Allocator<char>>;

// What Job::find_or_construct returns: to be called with the constructor's arguments.
template <class T>
class Constructor {
 public:
  explicit Constructor(std::string name) : name_(std::move(name)) {}

  // The object: constructed here, if this thread is the first to come, or by another one. Throws what the constructor
  // throws (then the next to come constructs), std::bad_alloc, and Error if the name is that of something else.
  template <class... Arguments>
  T* operator()(Arguments&&... arguments) {
    static_assert(alignof(T) <= 16, "dsm_named aligns to 16 bytes");
    static_assert(!std::is_polymorphic_v<T>, "another rank has its virtual functions at another address");
    std::exception_ptr failure;
    auto construct = [&](void* block) noexcept {
      try {
        ::new (block) T(std::forward<Arguments>(arguments)...);
        return 0;
      } catch (...) {
        failure = std::current_exception();
        return ECANCELED;
      }
    };
    const auto make = [](void* block, void* context) { return (*static_cast<decltype(construct)*>(context))(block); };
    void* const block = dsm_named(name_.c_str(), sizeof(T), make, &construct);
    if (failure != nullptr) std::rethrow_exception(failure);
    if (block == nullptr && errno == ENOMEM) throw std::bad_alloc();
    if (block == nullptr && errno == EEXIST) {
      throw Error("find_or_construct(\"" + name_ + "\"): the job's object of this name is not " +
                  std::to_string(sizeof(T)) + " bytes long; use one type for a name, or another name");
    }
    detail::check(block == nullptr ? -1 : 0, "dsm::Job::find_or_construct");
    return static_cast<T*>(block);
  }

 private:
  std::string name_;
};

// This process's part in the job, from here to the end of its scope. One per process.
class Job {
 public:
  // Joins; collective. Throws when the job does not come about: a line on stderr has said why.
  Job(int argc, char** argv) : base_(dsm_init(argc, argv)) { detail::check(base_ == nullptr ? -1 : 0, "dsm_init"); }
  // Leaves; collective: it waits for all ranks. An exception that ends the scope ends the job instead, with a line on
  // stderr and abort(): the others would wait for a rank that does not come, and this one for them. A rank that fails
  // on its own calls std::exit(1) inside the scope; dsmexec then stops the others.
  ~Job() {
    if (std::uncaught_exceptions() > exceptions_) {
      std::fprintf(stderr,
                   "dsm: rank %d: an exception leaves the scope of dsm::Job; catch it inside, or the job ends here\n",
                   DSM_NODE_ID);
      std::abort();
    }
    dsm_finalize();
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  [[nodiscard]] int rank() const noexcept { return DSM_NODE_ID; }  // 0 .. size()-1
  [[nodiscard]] int size() const noexcept { return DSM_NODE_NUM; }
  [[nodiscard]] std::size_t page_size() const noexcept { return dsm_page_size(); }  // bytes

  // `count` objects of T in the region, all bytes zero, at the beginning of a page of their own; collective, with the
  // same count in every rank. Never given back. Throws std::bad_alloc when the region has no room left: in all ranks
  // alike. For atomic operations on them: std::atomic_ref.
  template <class T>
  [[nodiscard]] std::span<T> alloc(std::size_t count) {
    static_assert(std::is_trivially_default_constructible_v<T> && std::is_trivially_destructible_v<T>,
                  "it comes to be as zero bytes, in all ranks at once: no constructor or destructor runs");
    if (count > dsm_size() / sizeof(T)) throw std::bad_alloc();
    if (count == 0) return {};
    void* const block = dsm_alloc(count * sizeof(T));
    if (block == nullptr) throw std::bad_alloc();
    return {static_cast<T*>(block), count};
  }

  // job.find_or_construct<T>("name")(arguments...): the job's one object of this name (1 to 255 bytes), for any thread
  // of any rank. The first to come constructs it; whoever comes meanwhile waits. It lives till the job ends: no
  // destructor runs.
  template <class T>
  [[nodiscard]] Constructor<T> find_or_construct(std::string name) {
    return Constructor<T>(std::move(name));
  }

  // Waits until every rank has come; collective.
  void barrier() { detail::check(dsm_barrier(), "dsm_barrier"); }

 private:
  char* base_;
  const int exceptions_ = std::uncaught_exceptions();
};

// A lock, of which the place in the region is the name: put it into memory from Job::alloc or Job::find_or_construct,
// on its own or as a member. In the region it is free to begin with. It works with std::scoped_lock and
// std::unique_lock. One thread of one rank holds it; not recursive (EDEADLK).
class Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void lock() { detail::check(dsm_lock_at(this), "dsm::Mutex::lock (is it in the region?)"); }
  // False: somebody holds it, or waits for it.
  [[nodiscard]] bool try_lock() {
    const int result = dsm_trylock_at(this);
    if (result == -1 && errno == EBUSY) return false;
    detail::check(result, "dsm::Mutex::try_lock (is it in the region?)");
    return true;
  }
  void unlock() { detail::check(dsm_unlock_at(this), "dsm::Mutex::unlock"); }

 private:
  [[maybe_unused]] char place_;  // so that two are at two places
};

// A condition variable, named by its place in the region as a Mutex is.
class ConditionVariable {
 public:
  ConditionVariable() = default;
  ConditionVariable(const ConditionVariable&) = delete;
  ConditionVariable& operator=(const ConditionVariable&) = delete;
  // Lets go of the mutex, waits to be notified, takes the mutex again. REQUIRES: this thread holds it.
  void wait(std::unique_lock<Mutex>& lock) {
    const int result = dsm_cond_wait_at(this, lock.mutex());
    const int error = errno;
    if (result == -1 && error == ENOLCK) lock.release();  // it is not held any more
    errno = error;
    detail::check(result, "dsm::ConditionVariable::wait");
  }
  template <class Predicate>
  void wait(std::unique_lock<Mutex>& lock, Predicate ready) {
    while (!ready()) wait(lock);
  }
  void notify_one() { detail::check(dsm_cond_signal_at(this), "dsm::ConditionVariable::notify_one"); }
  void notify_all() { detail::check(dsm_cond_broadcast_at(this), "dsm::ConditionVariable::notify_all"); }

 private:
  [[maybe_unused]] char place_;  // so that two are at two places
};

// A semaphore, the same in every rank that opens it by the same name (1 to 255 bytes). The first to open it gives it
// its value; it lives until the job ends.
class Semaphore {
 public:
  Semaphore(const std::string& name, unsigned value) : sem_(dsm_sem_open(name.c_str(), value)) {
    detail::check(sem_ == nullptr ? -1 : 0, "dsm::Semaphore");
  }
  ~Semaphore() { dsm_sem_close(sem_); }
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  void acquire() { detail::check(dsm_sem_wait(sem_), "dsm::Semaphore::acquire"); }
  // False: it is 0.
  [[nodiscard]] bool try_acquire() {
    const int result = dsm_sem_trywait(sem_);
    if (result == -1 && errno == EAGAIN) return false;
    detail::check(result, "dsm::Semaphore::try_acquire");
    return true;
  }
  void release() { detail::check(dsm_sem_post(sem_), "dsm::Semaphore::release"); }

 private:
  dsm_sem_t* sem_;
};

}  // namespace dsm

#endif
