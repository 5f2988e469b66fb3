#include "dsm/launch/control_fifo.hpp"

#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "ipc/error.hpp"
#include "ipc/fifo.hpp"

namespace dsm::launch {

ControlFifo::ControlFifo(std::string path) : path_(std::move(path)) {
  struct stat status {
  }, opened{};
  do {
    ours_ = ::lstat(path_.c_str(), &status) != 0 && errno == ENOENT;
    try {
      ipc::make_fifo(path_);
      fd_ = ipc::open_fifo_to_serve(path_);
    } catch (const std::system_error& error) {
      throw std::system_error(error.code(), "--control " + path_ + " (the name of a FIFO, or of none yet)");
    }
    if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      throw std::system_error(EBUSY, std::generic_category(), "another job is controlled by " + path_);
    }
    // Whose it was may have removed it between our opening and our locking it: then it has no name any more.
    ipc::check(::fstat(fd_.get(), &opened), "fstat");
  } while (::lstat(path_.c_str(), &status) != 0 || status.st_ino != opened.st_ino || status.st_dev != opened.st_dev);
  if ((opened.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw std::system_error(EPERM, std::generic_category(), "others may write into " + path_ + " (chmod 600 it)");
  }
}

ControlFifo::~ControlFifo() {
  if (ours_) ::unlink(path_.c_str());
}

void ControlFifo::serve(const std::function<void(Order)>& order, const std::function<void(std::string_view)>& unknown) {
  std::array<char, 512> buffer{};
  const ssize_t got = ::read(fd_.get(), buffer.data(), buffer.size());  // if there is more, poll(2) says so again
  if (got <= 0) return;
  line_.append(buffer.data(), static_cast<std::size_t>(got));
  for (std::size_t end = 0; (end = line_.find('\n')) != std::string::npos;) {
    const std::string one = line_.substr(0, end);
    line_.erase(0, end + 1);
    if (one == "status") {
      order(Order::status);
    } else if (one == "abort") {
      order(Order::abort);
    } else {
      unknown(one);
    }
  }
  if (line_.size() > ipc::max_record) {  // no order is so long
    unknown(line_);
    line_.clear();
  }
}

}  // namespace dsm::launch
