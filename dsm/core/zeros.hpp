// dsm/core/zeros.hpp - an owned, copyable array of zeros, for tables with one entry per page or lock.
//
// Indexing is async-signal-safe; construction and copying are not.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace dsm::core {

// An owned array of zeros. The C library takes a large one from the kernel, which gives memory only for what is touched.
template <class T>
class Zeros {
 public:
  explicit Zeros(std::size_t size) : size_(size), data_(static_cast<T*>(std::calloc(size ? size : 1, sizeof(T)))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  Zeros(const Zeros& other) : Zeros(other.size_) {
    if (size_ != 0) std::memcpy(static_cast<void*>(data_), other.data_, size_ * sizeof(T));
  }
  Zeros(Zeros&& other) noexcept : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  Zeros& operator=(Zeros other) noexcept {
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Zeros() { std::free(data_); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] T& operator[](std::size_t i) { return data_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::size_t size_;
  T* data_;
};

}  // namespace dsm::core
