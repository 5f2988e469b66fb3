// handler_watch.so - a preloaded library that sees what is called inside a signal handler and is not async-signal-safe:
// stdio, std::ostream, malloc and its kin, exit. strace cannot: a printf() that only fills a buffer is no system call.
//
//     LD_PRELOAD=build/tests/handler_watch.so HANDLER_WATCH=/tmp/seen build/bin/hello_signals
//
// appends to the file /tmp/seen a line "PID SIGNAL handler" for each delivery to a handler and "PID SIGNAL printf" for a
// call inside one. Handlers are found by standing before sigaction() and signal(): the program's handler is kept in a
// table, and the kernel gets one of ours, which counts the depth, by thread, around it. A handler that leaves by
// siglongjmp() leaves the depth raised. C library: glibc. async-signal-safe: all of it, until it has seen an offence.
// For tests only; not with a sanitizer, which stands before the same functions.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// glibc's own names for its allocator: dlsym() itself may allocate.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

namespace {

using Handler = void (*)(int, siginfo_t*, void*);

// What the program believes to have installed.
struct Installed {
  std::atomic<Handler> handler{nullptr};
  std::atomic<int> flags{0};
};
Installed installed[NSIG];

// In the thread's static block: the first touch allocates nothing.
[[gnu::tls_model("initial-exec")]] thread_local int current_signal = 0;

char report_path[512];

[[gnu::constructor]] void find_report() {
  const char* const path = std::getenv("HANDLER_WATCH");
  if (path != nullptr && std::strlen(path) < sizeof report_path) std::strcpy(report_path, path);
}

char* put_number(char* to, int number) {
  char digits[12];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number > 0);
  while (count > 0) *to++ = digits[--count];
  return to;
}

// One line, one write(). The file is opened each time: a descriptor of ours would show in /proc/PID/fd.
void report(const char* what) {
  const int saved = errno;
  char line[128];
  char* end = put_number(line, static_cast<int>(::getpid()));
  *end++ = ' ';
  end = put_number(end, current_signal);
  *end++ = ' ';
  while (*what != '\0') *end++ = *what++;
  *end++ = '\n';
  const int file = ::open(report_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (file >= 0) {
    if (::write(file, line, static_cast<std::size_t>(end - line)) == -1) errno = 0;
    ::close(file);
  }
  errno = saved;
}

void note(const char* call) {
  if (current_signal != 0) report(call);
}

void counted(int signo, siginfo_t* info, void* context) {
  const int outer = current_signal;
  current_signal = signo;
  report("handler");
  const Handler handler = installed[signo].handler.load();
  if ((installed[signo].flags.load() & SA_SIGINFO) != 0) {
    handler(signo, info, context);
  } else {
    reinterpret_cast<void (*)(int)>(reinterpret_cast<void*>(handler))(signo);
  }
  current_signal = outer;
}

// The function that would have been called without us.
template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool is_code(Handler handler) {
  const auto value = reinterpret_cast<long>(handler);
  return value != reinterpret_cast<long>(SIG_DFL) && value != reinterpret_cast<long>(SIG_IGN);
}

int install(int signo, const struct sigaction* action, struct sigaction* former) {
  static const auto real = next<int(int, const struct sigaction*, struct sigaction*)>("sigaction");
  if (signo <= 0 || signo >= NSIG) return real(signo, action, former);
  Installed& slot = installed[signo];
  const Handler old_handler = slot.handler.load();
  const int old_flags = slot.flags.load();
  struct sigaction ours {};
  if (action != nullptr) {
    ours = *action;
    if (is_code(action->sa_sigaction)) {
      slot.handler = action->sa_sigaction;  // before the kernel knows: the signal may come at once
      slot.flags = action->sa_flags;
      ours.sa_sigaction = counted;
      ours.sa_flags |= SA_SIGINFO;
    }
  }
  struct sigaction before {};
  const int result = real(signo, action != nullptr ? &ours : nullptr, &before);
  if (result == -1) {
    slot.handler = old_handler, slot.flags = old_flags;
    return -1;
  }
  if (former != nullptr) {
    *former = before;
    if (before.sa_sigaction == counted) {
      former->sa_sigaction = old_handler;
      if ((old_flags & SA_SIGINFO) == 0) former->sa_flags &= ~SA_SIGINFO;
    }
  }
  return result;
}

sighandler_t install_simple(int signo, sighandler_t handler, int flags) {
  struct sigaction action {};
  struct sigaction former {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  return install(signo, &action, &former) == -1 ? SIG_ERR : former.sa_handler;
}

}  // namespace

// The C++ streams: with stdio they come down to fwrite() and putc(), without (sync_with_stdio(false)) to write(), which
// is allowed in a handler. So the streams' own functions are watched, by their mangled names.
#define MANGLED(type, name, symbol, parameters, ...)           \
  extern "C" type name parameters __asm__(symbol);             \
  type name parameters {                                       \
    note("std::ostream");                                      \
    static type(*real) parameters = nullptr;                   \
    if (real == nullptr) real = next<type parameters>(symbol); \
    return real(__VA_ARGS__);                                  \
  }
MANGLED(void*, stream_text, "_ZSt16__ostream_insertIcSt11char_traitsIcEERSt13basic_ostreamIT_T0_ES6_PKS3_l",
        (void* stream, const char* text, long size), stream, text, size)
MANGLED(void*, stream_int, "_ZNSolsEi", (void* stream, int value), stream, value)
MANGLED(void*, stream_long, "_ZNSo9_M_insertIlEERSoT_", (void* stream, long value), stream, value)
MANGLED(void*, stream_unsigned, "_ZNSo9_M_insertImEERSoT_", (void* stream, unsigned long value), stream, value)
MANGLED(void*, stream_double, "_ZNSo9_M_insertIdEERSoT_", (void* stream, double value), stream, value)
MANGLED(void*, stream_pointer, "_ZNSo9_M_insertIPKvEERSoT_", (void* stream, const void* value), stream, value)
MANGLED(void*, stream_put, "_ZNSo3putEc", (void* stream, char value), stream, value)
MANGLED(void*, stream_write, "_ZNSo5writeEPKcl", (void* stream, const char* text, long size), stream, text, size)
MANGLED(void*, stream_flush, "_ZNSo5flushEv", (void* stream), stream)

#define WATCHED(type, name, parameters, ...)                  \
  type name parameters {                                      \
    note(#name);                                              \
    static type(*real) parameters = nullptr;                  \
    if (real == nullptr) real = next<type parameters>(#name); \
    return real(__VA_ARGS__);                                 \
  }
// A function with "..." is its sister with a va_list.
#define VARIADIC(name, sister, parameters, last, ...)         \
  int name parameters {                                       \
    note(#name);                                              \
    va_list rest;                                             \
    va_start(rest, last);                                     \
    static const auto real = next<decltype(sister)>(#sister); \
    const int result = real(__VA_ARGS__ __VA_OPT__(, ) rest); \
    va_end(rest);                                             \
    return result;                                            \
  }

extern "C" {

int sigaction(int signo, const struct sigaction* action, struct sigaction* former) noexcept {
  return install(signo, action, former);
}
sighandler_t signal(int signo, sighandler_t handler) noexcept { return install_simple(signo, handler, SA_RESTART); }
sighandler_t bsd_signal(int signo, sighandler_t handler) { return install_simple(signo, handler, SA_RESTART); }
sighandler_t ssignal(int signo, sighandler_t handler) noexcept { return install_simple(signo, handler, SA_RESTART); }
sighandler_t sysv_signal(int signo, sighandler_t handler) noexcept {
  return install_simple(signo, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER));
}

void* malloc(std::size_t size) {
  note("malloc");
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  note("calloc");
  return __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
  note("realloc");
  return __libc_realloc(block, size);
}
void free(void* block) {
  if (block != nullptr) note("free");
  __libc_free(block);
}
void* memalign(std::size_t alignment, std::size_t size) {
  note("memalign");
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note("aligned_alloc");
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t size) {
  note("posix_memalign");
  *block = __libc_memalign(alignment, size);
  return *block == nullptr ? ENOMEM : 0;
}

int __vfprintf_chk(FILE*, int, const char*, va_list);
int __vsnprintf_chk(char*, std::size_t, int, std::size_t, const char*, va_list);
int __vsprintf_chk(char*, int, std::size_t, const char*, va_list);
int __vprintf_chk(int, const char*, va_list);
VARIADIC(printf, vprintf, (const char* format, ...), format, format)
VARIADIC(fprintf, vfprintf, (FILE * file, const char* format, ...), format, file, format)
VARIADIC(dprintf, vdprintf, (int fd, const char* format, ...), format, fd, format)
VARIADIC(sprintf, vsprintf, (char* to, const char* format, ...), format, to, format)
VARIADIC(snprintf, vsnprintf, (char* to, std::size_t size, const char* format, ...), format, to, size, format)
VARIADIC(__printf_chk, __vprintf_chk, (int flag, const char* format, ...), format, flag, format)
VARIADIC(__fprintf_chk, __vfprintf_chk, (FILE * file, int flag, const char* format, ...), format, file, flag, format)
VARIADIC(__sprintf_chk, __vsprintf_chk, (char* to, int flag, std::size_t room, const char* format, ...), format, to,
         flag, room, format)
VARIADIC(__snprintf_chk, __vsnprintf_chk,
         (char* to, std::size_t size, int flag, std::size_t room, const char* format, ...), format, to, size, flag,
         room, format)
WATCHED(int, vprintf, (const char* format, va_list rest), format, rest)
WATCHED(int, vfprintf, (FILE * file, const char* format, va_list rest), file, format, rest)
WATCHED(int, vsnprintf, (char* to, std::size_t size, const char* format, va_list rest), to, size, format, rest)
WATCHED(int, __vprintf_chk, (int flag, const char* format, va_list rest), flag, format, rest)
WATCHED(int, __vfprintf_chk, (FILE * file, int flag, const char* format, va_list rest), file, flag, format, rest)
WATCHED(int, puts, (const char* text), text)
WATCHED(int, fputs, (const char* text, FILE* file), text, file)
WATCHED(int, putchar, (int character), character)
WATCHED(int, putc, (int character, FILE* file), character, file)
WATCHED(int, _IO_putc, (int character, FILE* file), character, file)
WATCHED(int, fputc, (int character, FILE* file), character, file)
WATCHED(std::size_t, fwrite, (const void* from, std::size_t size, std::size_t count, FILE* file), from, size, count,
        file)
WATCHED(int, fflush, (FILE * file), file)
WATCHED(void, perror, (const char* text), text)
WATCHED(char*, fgets, (char* to, int size, FILE* file), to, size, file)
WATCHED(std::size_t, fread, (void* to, std::size_t size, std::size_t count, FILE* file), to, size, count, file)
WATCHED(int, getc, (FILE * file), file)
WATCHED(int, fgetc, (FILE * file), file)
WATCHED(int, getchar, (), )

void exit(int code) noexcept {
  note("exit");
  static const auto real = next<void(int)>("exit");
  real(code);
  __builtin_unreachable();
}

}  // extern "C"
