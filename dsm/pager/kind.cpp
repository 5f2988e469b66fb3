#include "dsm/pager/kind.hpp"

#include "dsm/pager/sigsegv.hpp"
#include "dsm/pager/uffd.hpp"

namespace dsm::pager {

std::unique_ptr<Pager> make(Kind kind, std::size_t size, std::size_t page_size, FaultSink& sink, std::size_t own) {
  if (kind == Kind::uffd) return std::make_unique<UffdPager>(size, page_size, sink, own);
  return std::make_unique<SigsegvPager>(size, page_size, sink, own);
}

}  // namespace dsm::pager
