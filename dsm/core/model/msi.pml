/* dsm/core/model/msi.pml - the protocol of ../msi.cpp for Spin: three nodes, one page, two kinds of lanes.
 *
 * The explorer (../explorer.hpp) walks the real code; this model says the same once more, in a language made for it and
 * walked by a tool that others have tested. Names in brackets are the functions of msi.cpp and state.cpp that a part
 * stands for. How to run it, what is left out and why: README.md.
 *
 * As in the code, the core is asked what an event means (here one indivisible step), and says what must be done: a list
 * of actions, carried out in order, one at a time. A node takes no event while it has actions left (it holds its lock);
 * but its application threads, and all other nodes, run on between any two of them.
 */

/* ---- how much is walked; spin -DOPERATIONS=4 and so on override ---- */

#ifndef OPERATIONS
#define OPERATIONS 5   /* faults and writes, of all threads together; a second fault counts, too. Then all rest */
#endif
#ifndef DROPS
#define DROPS 1        /* copies given up in silence */
#endif
#ifndef HOME_DROPS
#define HOME_DROPS 1   /* the home gives up its own access; its frame stays the page */
#endif
#ifndef WRITE_BACKS
#define WRITE_BACKS 1  /* pages sent home unasked */
#endif
#ifndef THREADS
#define THREADS 1      /* application threads of each node, 1 or 2 */
#endif

/* Seeded bugs, -DUNDRAINED_QUEUE and so on: as with the mutants of the code (../mutants), each must be found. */

/* ---- the vocabulary (types.hpp) ---- */

#define NODES 3        /* the invariants below spell out all three */
#define HOME 0         /* the page's home; nodes 1 and 2 are its peers */

#define NONE 0         /* Access: what is allowed, or wanted; ordered */
#define READ 1
#define WRITE 2

mtype = { want, grant, recall, recalled, invalidate, invalidated, write_back };  /* Message::Kind */
mtype = { send, install, protect, wake };                                        /* Action */
mtype = { idle, recalling, invalidating, awaiting_write_back };                  /* Busy */

#define bit(node) (1 << (node))
/* Sequence numbers are compared modulo 16 here, modulo 2^32 in the core. REQUIRES: OPERATIONS + 1 < 8 */
#define newer(a, b) ((((a) - (b)) & 15) != 0 && (((a) - (b)) & 15) < 8)
#define VERSIONS 4     /* what the page says: the number of the last write in it, modulo this */

/* ---- the wire ----
 * Each channel is one direction of one lane between the home and a peer, first in first out. Nothing orders one channel
 * against another: a grant (on a call lane) and the invalidation or recall that follows it (on the service lane, or on
 * a call lane of the home's thread) overtake each other. */

#define SERVICE 0                  /* the service lane */
#define QUESTION(t) (1 + 2 * (t))  /* the call lane of the sender's thread t */
#define ANSWER(t) (2 + 2 * (t))    /* the same lane the other way: to the thread that asked */
#define LANES (1 + 2 * THREADS)
#define back_on(lane) (lane == SERVICE -> SERVICE : lane + 1)
#define to_peer(peer, lane) (((peer) - 1) * 2 * LANES + (lane))
#define to_home(peer, lane) (((peer) - 1) * 2 * LANES + LANES + (lane))

/* kind; access; the page travels too (in a want: a readable copy is here); sequence number; the page */
chan wire[2 * (NODES - 1) * LANES] = [2] of { mtype, byte, bool, byte, byte };

/* ---- a node (Local in state.hpp) ---- */

#define thread_of(node, t) ((node) * THREADS + (t))

byte view[NODES];                  /* protection of the application's view, as the processor sees it */
byte frame[NODES];                 /* the page's bytes */
byte here[NODES];                  /* what the core has made of `view`: ahead of it while there is something to do */
byte asked[NODES];                 /* access of the want under way */
byte seq[NODES];                   /* of the last grant installed */
bool discard[NODES];               /* should that want's grant have number `seq`, it is worth nothing any more */
bool waiting[NODES * THREADS];     /* this thread has told the core of its fault, and has not been woken */
/* A recall or invalidation that has overtaken the grant it names, and waits for it (Revoke). 0: none */
mtype overtook[NODES];
byte overtook_lane[NODES], overtook_keep[NODES], overtook_seq[NODES];
/* Actions: what; send: which channel, kind, access, with the page, seq; protect: access; install: the page, last */
chan todo[NODES] = [7] of { mtype, byte, mtype, byte, bool, byte };

/* ---- the home (Directory in state.hpp) ---- */

byte copies;                       /* bit n: node n has a readable copy */
byte epoch;                        /* exclusive grants so far */
byte owner;                        /* the peer that may write; 0: nobody, the home's frame is the page */
mtype busy = idle;
chan queue = [NODES] of { byte, byte, byte, bool };  /* from, thread, access, have. The front one is being served */

#define wire_seq ((epoch + 1) & 15)

/* ---- what must be true ---- */

byte last;                         /* what any thread has written last */
byte operations, drops, home_drops, write_backs;

#define writers ((view[0] == WRITE) + (view[1] == WRITE) + (view[2] == WRITE))
#define readers ((view[0] == READ) + (view[1] == READ) + (view[2] == READ))
#define up_to_date(node) (view[node] == NONE || frame[node] == last)

/* Stands in every step that changes one of these variables; so it holds in every state. A read that needs no fault is
 * therefore no step of a thread: that it would see the last write is said here, for all nodes, at all times. */
inline check_page() {
  assert(writers == 0 || (writers == 1 && readers == 0));  /* one writer, or many readers */
  assert(up_to_date(0) && up_to_date(1) && up_to_date(2))  /* who may read sees the last write */
}

/* Every fault is answered: who waits is woken. No fairness is assumed: OPERATIONS bounds what the others can do, so no
 * run goes on for ever, unless nodes talk without end. (Node 2 does what node 1 does.) */
#define answered(node) ([] (waiting[thread_of(node, 0)] -> <> !waiting[thread_of(node, 0)]))
ltl every_fault_is_answered { answered(0) && answered(1) }

/* ==== actions ===================================================================================================== */

inline act(node, what, channel, kind, access, page, number) {
  assert(nfull(todo[node]));
  todo[node]!what, channel, kind, access, page, number
}
inline allow(node, access) {       /* [State::allow] */
  if
  :: here[node] != access -> here[node] = access; act(node, protect, 0, 0, access, 0, 0)
  :: else
  fi
}

inline carry_out_one(node) {       /* [Node::carry_out] */
  todo[node]?what, channel, kind, access, page, number;
  if
  :: what == protect ->
    printf("node %d: protect %d\n", node, access);
    view[node] = access;
    check_page()
  :: what == install ->
    printf("node %d: install version %d\n", node, number);
    frame[node] = number;
    check_page()
  :: what == send ->
    printf("node %d: send %e, access %d, page %d, seq %d, on channel %d\n", node, kind, access, page, number, channel);
    assert(nfull(wire[channel]));  /* a send under the lock never blocks */
    wire[channel]!kind, access, page, number, (page && kind != want -> frame[node] : 0)
  :: what == wake ->               /* all who wait for the page [State::wake_all] */
    printf("node %d: wake\n", node);
    waiting[thread_of(node, 0)] = false;
#if THREADS > 1 && !defined(LOST_SECOND_WAITER)
    waiting[thread_of(node, 1)] = false
#endif
  fi;
  what = 0; channel = 0; kind = 0; access = 0; page = 0; number = 0
}

/* Actions that nobody can notice early or late need no step of their own: fewer states, the same mistakes. A wake lets
 * a thread go on, which it may do later; a send lets a message arrive, which it may do later. Not so if a thread of
 * this node could change the page before it is sent, or look at it before it is installed. */
#define is_quiet(node) (what == wake || (what == send && (!page || view[node] != WRITE)) || \
                        (what == install && view[node] == NONE))
inline carry_out_quiet_ones(node) {
  do
  :: len(todo[node]) != 0 ->
    todo[node]?<what, channel, kind, access, page, number>;
    if
    :: is_quiet(node) -> carry_out_one(node)
    :: else -> break
    fi
  :: else -> break
  od;
  what = 0; channel = 0; kind = 0; access = 0; page = 0; number = 0
}

/* ==== the core of a peer ========================================================================================== */

inline ask(node, t, wanted) {      /* [ask] */
  asked[node] = wanted;
  act(node, send, to_home(node, QUESTION(t)), want, wanted, (here[node] == READ), 0)
}

/* Obeys a recall: lowers the protection, then answers with the page as it is then. [give_up] */
inline give_back(node, lane, keep, about) {
  allow(node, keep);
  act(node, send, to_home(node, back_on(lane)), recalled, keep, true, about)
}
/* Obeys an invalidation. [give_up] */
inline forget(node, lane, about) {
#ifdef ACKNOWLEDGE_BEFORE_PROTECT
  act(node, send, to_home(node, back_on(lane)), invalidated, NONE, false, about);
  allow(node, NONE)
#else
  allow(node, NONE);
  act(node, send, to_home(node, back_on(lane)), invalidated, NONE, false, about)
#endif
}

#ifdef DISCARDED_FOR_EVER
#define is_worthless(node, about) (discard[node])
#else
#define is_worthless(node, about) (discard[node] && about == seq[node])
#endif

/* What the asserts of this and the following parts refuse is what the core calls a bad message. [on_grant] */
inline on_grant(node, t, given, carries, about, bytes) {
  assert(given == asked[node] && given != NONE && !newer(seq[node], about));
  assert(!(given == WRITE && about == seq[node]));
  assert(carries || (given == WRITE && here[node] == READ));
  assert(overtook[node] == 0 || overtook_seq[node] == about);
  if
  :: is_worthless(node, about) ->  /* revoked before it came: ask once more */
#ifndef DISCARDED_FOR_EVER
    discard[node] = false;
#endif
    ask(node, t, given)
  :: else ->
    discard[node] = false;
    seq[node] = about;
    asked[node] = NONE;
    if
    :: carries -> act(node, install, 0, 0, 0, 0, bytes)
    :: else
    fi;
    allow(node, given);
    act(node, wake, 0, 0, 0, 0, 0);
    if                             /* [revoke_overtaken] */
    :: overtook[node] == 0
    :: overtook[node] == recall -> give_back(node, overtook_lane[node], overtook_keep[node], overtook_seq[node])
    :: overtook[node] == invalidate -> forget(node, overtook_lane[node], overtook_seq[node])
    fi;
    overtook[node] = 0; overtook_lane[node] = 0; overtook_keep[node] = 0; overtook_seq[node] = 0
  fi
}

inline wait_for_grant(node, lane, asks, keep, about) {  /* [State::defer, before_grant] */
  overtook[node] = asks; overtook_lane[node] = lane; overtook_keep[node] = keep; overtook_seq[node] = about
}

inline on_recall(node, lane, keep, about) {  /* [on_recall] */
  if
  :: newer(about, seq[node]) ->    /* it has overtaken the grant that it names */
    assert(overtook[node] == 0 && asked[node] == WRITE);
    wait_for_grant(node, lane, recall, keep, about)
  :: about == seq[node] && here[node] == WRITE ->
    assert(overtook[node] == 0);
    give_back(node, lane, keep, about)
  :: else ->                       /* written back already: say so, for a thread may wait for it [answer_too_late] */
    act(node, send, to_home(node, back_on(lane)), recalled, NONE, false, about)
  fi
}

inline on_invalidate(node, lane, about) {  /* [on_invalidate] */
  assert(overtook[node] == 0 && !(about == seq[node] && here[node] == WRITE));
  assert(!newer(about, seq[node]) || asked[node] == READ);
  if
  :: newer(about, seq[node]) ->    /* our grant is on its way: it must serve the one who waits, then go */
#ifdef OVERTAKING_INVALIDATION_DROPPED
    forget(node, lane, about)
#else
    wait_for_grant(node, lane, invalidate, NONE, about)
#endif
  :: else ->
    if
    :: about == seq[node] && here[node] == NONE && asked[node] == READ ->
#ifndef STALE_GRANT_INSTALLED
      discard[node] = true         /* dropped in silence and wanted again: perhaps its grant is on its way */
#endif
    :: else
    fi;
    forget(node, lane, about)
  fi
}

/* ==== the core of the home ======================================================================================== */

/* The home's own request, granted: [grant_read] and [grant_write] if r.from is this node. */
inline take(wanted) {
  if
  :: wanted == WRITE -> epoch++; copies = 0
  :: else
  fi;
  asked[HOME] = NONE;
  allow(HOME, wanted);
  act(HOME, wake, 0, 0, 0, 0, 0)
}

inline grant_read(from, t) {       /* [grant_read] */
  copies = copies | bit(from);
  if
  :: here[HOME] == WRITE -> allow(HOME, READ)
  :: else
  fi;
  act(HOME, send, to_peer(from, ANSWER(t)), grant, READ, true, wire_seq)
}

/* What the directory says and what the requester says must agree, or the page travels, too: it may have dropped the
 * copy that the home remembers, and it may have lost since it asked the copy that it had. */
#ifdef STALE_COPYSET_AFTER_A_DROP
#define has_copy(from, have) ((copies & bit(from)) != 0)
#else
#define has_copy(from, have) (have && (copies & bit(from)) != 0)
#endif

inline grant_write(from, t, have) {  /* [grant_write] */
  have = has_copy(from, have);
  epoch++;
  copies = 0;
  allow(HOME, NONE);
  owner = from;
  act(HOME, send, to_peer(from, ANSWER(t)), grant, WRITE, !have, wire_seq)
}

/* What must happen before the front request can be granted: `busy` says what. [must_wait]
 * `lane`: on which the home asks; its service lane, or the call lane of its own thread that has just faulted. */
inline must_wait(lane, from, wanted) {
  if
  :: owner != 0 && owner == from -> /* it wants again what it has just written back: that will arrive */
    busy = awaiting_write_back
  :: owner != 0 && owner != from ->
    busy = recalling;
    act(HOME, send, to_peer(owner, lane), recall, (wanted == READ -> READ : NONE), false, wire_seq)
  :: owner == 0 && wanted == WRITE && (copies & ~bit(from)) != 0 ->
    busy = invalidating;
    if
    :: (copies & bit(1)) != 0 && from != 1 -> act(HOME, send, to_peer(1, lane), invalidate, NONE, false, wire_seq)
    :: else
    fi;
    if
    :: (copies & bit(2)) != 0 && from != 2 -> act(HOME, send, to_peer(2, lane), invalidate, NONE, false, wire_seq)
    :: else
    fi
  :: else
  fi
}
/* Serves the requests, in order of arrival, until one must wait. [serve] */
inline serve() {
  do
  :: busy == idle && len(queue) != 0 ->
    queue?<from, thread, wanted, have>;
    must_wait(SERVICE, from, wanted);
    if
    :: busy == idle ->
      queue?from, thread, wanted, have;
      if
      :: from == HOME -> take(wanted)
      :: from != HOME && wanted == READ -> grant_read(from, thread)
      :: from != HOME && wanted == WRITE -> grant_write(from, thread, have)
      fi
    :: else
    fi;
#ifdef UNDRAINED_QUEUE
    break
#endif
  :: else -> break
  od;
  from = 0; thread = 0; wanted = 0; have = 0
}

inline on_recalled(peer, keeps, carries, about, bytes) {  /* [on_recalled] */
  if
  :: !carries                      /* what has been written back was the answer [too_late] */
  :: carries ->
    assert(busy == recalling && owner == peer && about == wire_seq);
#ifndef RECALLED_PAGE_FORGOTTEN
    act(HOME, install, 0, 0, 0, 0, bytes);
#endif
    owner = 0;
    copies = (keeps == READ -> bit(peer) : 0);
    busy = idle
  fi
}
inline on_invalidated(peer, carries, about) {  /* [on_invalidated] */
  assert(busy == invalidating && (copies & bit(peer)) != 0 && about == wire_seq && !carries);
  copies = copies & ~bit(peer);
  queue?<from, thread, wanted, have>;
  if
  :: (copies & ~bit(from)) == 0 -> busy = idle
  :: else                          /* others have still to answer */
  fi
}
inline on_write_back(peer, carries, about, bytes) {  /* [on_write_back] */
  assert(owner == peer && carries && about == wire_seq);
  act(HOME, install, 0, 0, 0, 0, bytes);
  owner = 0;
  busy = idle                      /* if it was being recalled: this is it, and the recall will be ignored */
}

/* ==== the threads ================================================================================================= */

#define at_rest(node) (len(todo[node]) == 0)  /* its lock is free */

/* Scratch variables: set and cleared within one step. */
#define SCRATCH \
  mtype what, kind, says; \
  byte channel, access, number, peer, keeps, about, bytes, from, thread, wanted, lane; \
  bool page, carries, have

/* From a channel to the core; the actions that nobody can notice follow in the same step. */
inline receive(node, channel) {
  wire[channel]?says, keeps, carries, about, bytes;
  printf("node %d: %e arrives\n", node, says)
}
inline done_with_event(node) {
  d_step {
    carry_out_quiet_ones(node);
    says = 0; keeps = 0; carries = 0; about = 0; bytes = 0; lane = 0; peer = 0
  }
}

inline write(node) {
  printf("node %d: write\n", node);
  last = (last + 1) % VERSIONS;
  frame[node] = last;
  check_page()
}
/* An instruction that the view forbids is a fault: it counts as an operation, each time. */
inline trap(node) {
  operations++;
  if
  :: need != NONE                  /* again */
  :: need == NONE && view[node] == NONE -> need = READ
  :: need == NONE -> need = WRITE
  fi;
  printf("node %d: fault, wants %d\n", node, need)
}
/* A thread that has been woken, and has read all its answers, runs its instruction again. The page may be gone then. */
#define runs_on(node, t, no_calls) (no_calls && !waiting[thread_of(node, t)])
#define run_again(node, t, no_calls) (runs_on(node, t, no_calls) && view[node] >= need)
#define fault_again(node, t, no_calls) (runs_on(node, t, no_calls) && may_trap(node))
#define is_cut_off(node, t, no_calls) (runs_on(node, t, no_calls) && view[node] < need && operations == OPERATIONS)
/* A node's only thread is caught and tells the core in one step: until it does, nothing can raise its protection. */
#define may_trap(node) (view[node] < (need == NONE -> WRITE : need) && operations < OPERATIONS && \
                        (THREADS > 1 || at_rest(node)))
#define may_hit(node) (view[node] == WRITE && operations < OPERATIONS)

inline resume(node) {
  if
  :: need == WRITE -> write(node)
  :: else
  fi;
  need = NONE
}

proctype PeerThread(byte node; byte t) {
  byte need;                       /* of the instruction that has faulted; NONE: between two instructions */
  bool asking;                     /* it owns a call lane, and has still to read an answer from it */
  SCRATCH;
end:
  do
  :: d_step { may_hit(node) -> operations++; write(node) }
  :: atomic {
      may_trap(node) ->
fault:
      trap(node);
      at_rest(node);               /* waits for the lock, if need be */
      if                           /* [on_fault] */
      :: here[node] >= need        /* another thread was quicker */
      :: else ->
        waiting[thread_of(node, t)] = true;
        if
        :: asked[node] == NONE -> ask(node, t, need); asking = true
        :: else                    /* asked for already; if it turns out too little, it faults again */
        fi
      fi;
      done_with_event(node)
    };
    do                             /* it reads the answer itself, on the lane on which it asked [Node::do_calls] */
    :: atomic {
        asking && at_rest(node) && len(wire[to_peer(node, ANSWER(t))]) != 0 ->
        receive(node, to_peer(node, ANSWER(t)));
        on_grant(node, t, keeps, carries, about, bytes);
        asking = (asked[node] != NONE);
        done_with_event(node)
      }
    :: atomic { run_again(node, t, !asking) -> resume(node) }; break
    :: atomic { fault_again(node, t, !asking) -> goto fault }
    :: atomic { is_cut_off(node, t, !asking) -> need = NONE }; break
    od
  od
}

/* One process stands for the service thread, and for whoever holds the lock and carries out what the core has said. */
#define carry_out(node) d_step { !at_rest(node) -> carry_out_one(node); carry_out_quiet_ones(node) }

/* Recalls and invalidations come on the service lane and on the call lanes of the home's threads; each is answered on
 * the lane on which it came. And what a peer does of its own accord, when it is short of room. */
#define came(node, on) (len(wire[to_peer(node, on)]) != 0)
#define may_leave(node, held) (at_rest(node) && here[node] == held && asked[node] == NONE && overtook[node] == 0)

proctype PeerService(byte node) {
  SCRATCH;
end:
  do
  :: carry_out(node)
  :: atomic {
      at_rest(node) && (came(node, SERVICE) || came(node, QUESTION(0)) || came(node, QUESTION(THREADS - 1))) ->
      if
      :: came(node, SERVICE) -> lane = SERVICE
      :: came(node, QUESTION(0)) -> lane = QUESTION(0)
#if THREADS > 1
      :: came(node, QUESTION(1)) -> lane = QUESTION(1)
#endif
      fi;
      receive(node, to_peer(node, lane));
      if
      :: says == recall -> on_recall(node, lane, keeps, about)
      :: says == invalidate -> on_invalidate(node, lane, about)
      fi;
      done_with_event(node)
    }
  :: d_step {                      /* the event Drop */
      may_leave(node, READ) && drops < DROPS -> drops++; allow(node, NONE)
    }
  :: d_step {                      /* the event WriteBack */
      may_leave(node, WRITE) && write_backs < WRITE_BACKS ->
      write_backs++;
      allow(node, NONE);
      act(node, send, to_home(node, SERVICE), write_back, NONE, true, seq[node])
    }
  od
}

#define first(nodes) (((nodes) & bit(1)) != 0 -> 1 : 2)

proctype HomeThread(byte t) {
  byte need;
  byte called;                     /* bit n: it has asked node n, and has still to read the answer */
  SCRATCH;
end:
  do
  :: d_step { may_hit(HOME) -> operations++; write(HOME) }
  :: atomic {
      may_trap(HOME) ->
fault:
      trap(HOME);
      at_rest(HOME);
      if                           /* [on_fault] */
      :: here[HOME] >= need
      :: else ->
        waiting[thread_of(HOME, t)] = true;
        if
        :: asked[HOME] != NONE
        :: asked[HOME] == NONE && len(queue) != 0 ->
          asked[HOME] = need;
          queue!HOME, t, need, false
        :: asked[HOME] == NONE && len(queue) == 0 ->
          asked[HOME] = need;      /* nobody is before it: it asks the peers itself, and reads their answers itself */
          must_wait(QUESTION(t), HOME, need);
          if
          :: busy == recalling -> called = bit(owner); queue!HOME, t, need, false
          :: busy == invalidating -> called = copies; queue!HOME, t, need, false
          :: busy == idle -> take(need)
          fi
        fi
      fi;
      done_with_event(HOME)
    };
    do
    :: atomic {
        called != 0 && at_rest(HOME) && len(wire[to_home(first(called), ANSWER(t))]) != 0 ->
        peer = first(called);
        called = called & ~bit(peer);
        receive(HOME, to_home(peer, ANSWER(t)));
        if
        :: says == recalled -> on_recalled(peer, keeps, carries, about, bytes)
        :: says == invalidated -> on_invalidated(peer, carries, about)
        fi;
        serve();
        done_with_event(HOME)
      }
    :: atomic { run_again(HOME, t, called == 0) -> resume(HOME) }; break
    :: atomic { fault_again(HOME, t, called == 0) -> goto fault }
    :: atomic { is_cut_off(HOME, t, called == 0) -> need = NONE }; break
    od
  od
}

/* Wants, on the call lanes of the peers' threads; and what the peers answer on the service lane. */
#define said(node, on) (len(wire[to_home(node, on)]) != 0)

proctype HomeService() {
  SCRATCH;
end:
  do
  :: carry_out(HOME)
  :: d_step {                      /* the event Drop: what the home may do with its own page [drop] */
      at_rest(HOME) && here[HOME] != NONE && asked[HOME] == NONE && home_drops < HOME_DROPS ->
      home_drops++;
#ifdef HOME_DROP_FORGETS_THE_COPIES
      copies = 0;
#endif
      allow(HOME, NONE)
    }
  :: atomic {
      at_rest(HOME) && (said(1, SERVICE) || said(1, QUESTION(0)) || said(1, QUESTION(THREADS - 1)) ||
                        said(2, SERVICE) || said(2, QUESTION(0)) || said(2, QUESTION(THREADS - 1))) ->
      if
      :: said(1, SERVICE) -> peer = 1; lane = SERVICE
      :: said(1, QUESTION(0)) -> peer = 1; lane = QUESTION(0)
      :: said(2, SERVICE) -> peer = 2; lane = SERVICE
      :: said(2, QUESTION(0)) -> peer = 2; lane = QUESTION(0)
#if THREADS > 1
      :: said(1, QUESTION(1)) -> peer = 1; lane = QUESTION(1)
      :: said(2, QUESTION(1)) -> peer = 2; lane = QUESTION(1)
#endif
      fi;
      receive(HOME, to_home(peer, lane));
      if
      :: says == want -> assert(nfull(queue)); queue!peer, (lane - 1) / 2, keeps, carries  /* [on_want] */
      :: says == recalled -> on_recalled(peer, keeps, carries, about, bytes)
      :: says == invalidated -> on_invalidated(peer, carries, about)
      :: says == write_back -> on_write_back(peer, carries, about, bytes)
      fi;
      serve();
      done_with_event(HOME)
    }
  od
}

/* ==== the world =================================================================================================== */

/* What a peer may do with the page, the home knows. */
#define known(peer) (view[peer] == NONE || owner == peer || (view[peer] == READ && (copies & bit(peer)) != 0))

init {
  atomic {
    run HomeThread(0); run PeerThread(1, 0); run PeerThread(2, 0);
#if THREADS > 1
    run HomeThread(1); run PeerThread(1, 1); run PeerThread(2, 1);
#endif
    run HomeService(); run PeerService(1); run PeerService(2)
  };
  timeout ->                       /* nothing is under way any more: what the nodes believe fits what is */
  assert(known(1) && known(2));
  assert(owner != 0 || frame[HOME] == last)
}
