// A host that goes while the pages stay: they live at the daemon (Placement::daemon), which is no host.
//
// A host stands only where it has asked for the page since it came (State::wanted): what it costs to let it go is what it
// had, not what there is. In the directory of a page it can stand in three places, and Left takes it out of all three:
//   copies  It reads no longer. Had it been asked to forget its copy, that counts as answered.
//   owner   The home's frame is the page again: with what the host has said last, or with what it held before the page
//           was granted; either way nobody else has a copy, or the host could not have been granted the page. Had the
//           page been called back, that counts as answered; had the host itself been waiting for what it has written
//           back, that too.
//   queue   It wants nothing any more. Had its request been the one that is being served, others have been asked in its
//           name, and will answer. What is under way is then `for_nobody`: the answers are taken as always, and only
//           then does the next request begin. (Not before: nobody is asked the same thing twice.)
// Then whatever nobody is asked for any more is served, so all who wait are served in the end, as they would have been
// had the host answered.
//
// Whoever comes next in the slot knows no number of any page. Every number is newer to it than none (newer() in
// state.hpp), and the directory knows nothing of it, so that nobody asks it about a grant that it has not had. The epoch
// stays: to the other hosts the numbers go on.
#include "dsm/core/state.hpp"

namespace dsm::core {

namespace {

void take_out(State& s, Page page, Node who) {
  Directory& d = s.directory(page);
  const bool asked_in_its_name = s.forget_requests(page, who);
  if (asked_in_its_name && (d.busy == Busy::recalling || d.busy == Busy::invalidating)) d.for_nobody = 1;
  d.copies &= ~bit(who);
  if (d.owner == who + 1) {
    d.owner = 0;
    d.rest();
  }
  if (d.busy == Busy::invalidating && s.copies_in_the_way(page) == 0) d.rest();
}

}  // namespace

void left(State& s, Node who, Serve serve, Actions& out) {
  for (Page page = 0; (page = s.wanted.next(who, page)) != PageSets::none; ++page) {
    take_out(s, page, who);
    s.wanted.remove(who, page);
    const Directory& d = s.directory(page);
    if (d.busy == Busy::idle && d.queue != 0) s.unserved.add(0, page);
  }
  serve_unserved(s, serve, out);
}

// One page's requests take less than the rest of the actions: a grant or an invalidation for every host, and a Wake for
// every thread of ours.
void serve_unserved(State& s, Serve serve, Actions& out) {
  if (s.unserved.sets() == 0) return;
  for (Page page = 0; (page = s.unserved.next(0, page)) != PageSets::none; ++page) {
    if (out.size() > Actions::capacity / 8) return;  // the rest is due at once, see arm()
    s.unserved.remove(0, page);
    const Directory& d = s.directory(page);  // somebody may have asked meanwhile, and been served with all others
    if (d.busy == Busy::idle && d.queue != 0) serve(s, page, out);
  }
}

}  // namespace dsm::core
