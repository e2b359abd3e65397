/* Does each start of a job belong to one worker, and does each come to an end?
 *
 * Two workers claim jobs, settle them and give them back.  An answer may be lost, and a settle that its caller has
 * given up on, or repeats, may reach the table much later.  A worker loses its connection once, and with it its key; it
 * comes back under its old id if it can.  A rescue runs whenever a worker is without its key.
 *
 *   -DKEEP=1   completed jobs stay; without it they are deleted, and enqueued again under the same id
 *   -DJOBS=2   there are two jobs, and a claim brings both; without it there is one
 *   -DCLAIMS=2 there are two claims at most, not three
 *   -DCUTS=0   no connection is lost; 1: that of the first worker; 2: of both
 *   -DDIES=1   the first worker dies, at any step
 *
 * Every other -D takes a step of the protocol away, see tests/model/test_protocol_models.py.
 */
#ifndef KEEP
#define KEEP 0
#endif
#ifndef JOBS
#define JOBS 1
#endif
#ifndef CUTS
#define CUTS 1
#endif
#ifndef DIES
#define DIES 0
#endif
#ifndef CLAIMS
#define CLAIMS 3  /* at most */
#endif
#define IDS 3
#define RESCUE 3  /* the holder of a lock or a key: this, or w + 1, or */
#define UNDER_WAY 4

mtype:status = { DELETED, PENDING, RUNNING, COMPLETED };
mtype:how = { COMPLETE, RELEASE };

typedef Job { mtype:status status; byte claim, worker, attempts, locked; bool again };
typedef Start { byte claim, worker, attempts; bool again, last; mtype:how how };

Job job[JOBS];
Start held[2 * JOBS];           /* the start that each worker knows of each job */
Start late[JOBS];               /* of a settle that is still to come, or comes again */
byte claim_seq, worker_seq;
byte claim_of[CLAIMS + 1];      /* the table claims: the worker's id; 0: there is no such row */
bool registered[IDS + 1];       /* the table workers */
byte shared[IDS + 1];           /* its rows locked for key share: by claims of worker w (w + 1), and one UNDER_WAY */
bool updated[IDS + 1];          /* its rows locked for update, by a rescue */
byte alive[IDS + 1];            /* the key alive: its holder */
byte id[2];                     /* under which each worker goes; 0: none */
bool connected[2], dead[2];
byte dropped[2];
byte under_way, under_way_id;   /* a claim whose caller has given up on it, and its worker's id */

#define HELD(j) held[w * JOBS + j]
#define KNOWN(c) (held[w * JOBS].claim == c || held[w * JOBS + JOBS - 1].claim == c)
#define RUNS(j, c) (job[j].status == RUNNING && job[j].claim == c)
#define FREE(j) (job[j].status == PENDING && !job[j].locked)
#define IN_USE(c) (RUNS(0, c) || RUNS(JOBS - 1, c))
#ifdef FENCE_BY_ATTEMPT
#define GOES_ON(j, s) \
  (s.claim && job[j].status == RUNNING && job[j].attempts == s.attempts && job[j].worker == s.worker)
#else
#define GOES_ON(j, s) (s.claim && RUNS(j, s.claim))
#endif
#define UNKNOWN(c) (claim_of[c] == id[w] && !KNOWN(c))
#ifdef COUNT_CLAIMS  /* compare how many claims there are, and count those of lost jobs, too */
#define COUNT 1
#define NOTICED \
  ((claim_of[1] == id[w]) + (claim_of[2] == id[w]) + (claim_of[3] == id[w]) > (HELD(0).claim > 0) + dropped[w])
#else
#define COUNT 0
#define NOTICED true
#endif
#define LEFT(n) (alive[n] == 0 && (registered[n] || claim_of[1] == n || claim_of[2] == n || claim_of[CLAIMS] == n))

inline copy(from, to) {
  to.claim = from.claim; to.worker = from.worker; to.attempts = from.attempts; to.again = from.again; to.how = from.how;
  to.last = from.last
}

inline clear(s) { s.claim = 0; s.worker = 0; s.attempts = 0; s.again = false; s.how = 0; s.last = false }

inline unlock(holder) {
  job[0].locked = (job[0].locked == holder -> 0 : job[0].locked);
  job[JOBS - 1].locked = (job[JOBS - 1].locked == holder -> 0 : job[JOBS - 1].locked)
}

/* complete_jobs.sql and release_jobs.sql, when they commit, and the claims that the worker has finished with it */
inline settle(j, s) {
  if
  :: GOES_ON(j, s) ->
     assert(job[j].claim == s.claim && job[j].again == s.again);  /* it changes only the start that it names */
     if
     :: s.how == COMPLETE -> job[j].status = (KEEP -> COMPLETED : DELETED)
     :: else -> job[j].status = PENDING; job[j].attempts--
     fi
  :: else
  fi;
  if
  :: s.last -> claim_of[s.claim] = 0
  :: else
  fi
}

/* One call settles one job: it waits for the row, changes it, and commits.  Its answer may be lost. */
inline settle_one(j) {
  if
  :: HELD(j).how = COMPLETE
  :: HELD(j).how = RELEASE
  fi;
#ifdef FORGET_EARLY
  HELD(j).last = true;
#else
  HELD(j).last = JOBS == 1 || HELD(JOBS - 1 - j).claim != HELD(j).claim;  /* postgres/holds.py */
#endif
  if
  :: d_step { job[j].locked == 0 -> job[j].locked = w + 1 };
     d_step { settle(j, HELD(j)); job[j].locked = 0 }
  :: late[j].claim == 0  /* it gives up before the call has reached the row */
  fi;
  if
  :: d_step { late[j].claim == 0 -> copy(HELD(j), late[j]); clear(HELD(j)) }
  :: d_step { !GOES_ON(j, HELD(j)) -> clear(HELD(j)) }
  fi
}

/* claim_jobs.sql, when it commits */
inline start_one(j, holder, worker_id, number) {
  if
  :: job[j].locked == holder ->
     job[j].status = RUNNING; job[j].attempts++; job[j].worker = worker_id; job[j].claim = number; job[j].locked = 0;
     /* no other start of the job may still settle */
     assert(!GOES_ON(j, held[j]) && !GOES_ON(j, held[JOBS + j]) && !GOES_ON(j, late[j]))
  :: else
  fi
}

inline start(holder, worker_id, number) {
  assert(registered[worker_id]);  /* no claim belongs to a worker that was given away */
  start_one(0, holder, worker_id, number);
#if JOBS == 2
  start_one(1, holder, worker_id, number);
#endif
  claim_of[number] = worker_id; shared[worker_id] = shared[worker_id] & ~holder
}

/* The answer to the claim; what the worker still runs of an earlier start settles later. */
inline know(j) {
  if
  :: RUNS(j, c) ->
     if
     :: HELD(j).claim && late[j].claim == 0 -> HELD(j).how = COMPLETE; copy(HELD(j), late[j])
     :: else
     fi;
     HELD(j).claim = c; HELD(j).worker = id[w]; HELD(j).attempts = job[j].attempts; HELD(j).again = job[j].again
  :: else
  fi
}

/* private/give_back_claims.sql for release_unknown_jobs.sql: one statement */
inline give_back_unknown(j) {
  if
  :: job[j].status == RUNNING && job[j].locked == 0 && UNKNOWN(job[j].claim) ->
     job[j].status = PENDING; job[j].attempts--; job[j].claim = 0
  :: else
  fi
}

inline forget(c, condition) {
  if
  :: condition && !IN_USE(c) -> claim_of[c] = 0  /* private/forget_claims.sql */
  :: else
  fi
}

proctype Worker(byte w) provided (!dead[w]) {
  byte c;

end:
  do
  /* register_worker.sql: its row, then the key, then its row again, because a rescue may have come between */
  :: !connected[w] && id[w] && registered[id[w]] ->
     if
     :: d_step { alive[id[w]] == 0 -> alive[id[w]] = w + 1 };
        if
#ifndef NO_SECOND_LOOK
        :: d_step { !registered[id[w]] && alive[id[w]] == w + 1 -> alive[id[w]] = 0; id[w] = 0 }
        :: d_step { registered[id[w]] -> connected[w] = true }
#else
        :: d_step { connected[w] = true; assert(registered[id[w]]) }  /* one that comes back is registered */
#endif
        fi
     :: alive[id[w]] != 0  /* an error: try again */
     fi
  :: d_step { !connected[w] && (!id[w] || !registered[id[w]]) && worker_seq < IDS ->
       worker_seq++; id[w] = worker_seq; registered[id[w]] = true; alive[id[w]] = w + 1; connected[w] = true
     }
  /* claim_jobs.sql */
  :: d_step { id[w] && claim_seq < CLAIMS && (FREE(0) || FREE(JOBS - 1)) ->
       job[0].locked = (FREE(0) -> w + 1 : job[0].locked);
       job[JOBS - 1].locked = (FREE(JOBS - 1) -> w + 1 : job[JOBS - 1].locked)
     };
     if
     :: d_step { registered[id[w]] && !updated[id[w]] && claim_seq < CLAIMS ->  /* for key share skip locked */
          claim_seq++; c = claim_seq;
#ifndef NO_ROW_LOCK
          shared[id[w]] = shared[id[w]] | (w + 1)
#endif
        }
     :: d_step { claim_seq == CLAIMS -> unlock(w + 1) }; goto end
     :: d_step { !(registered[id[w]] && !updated[id[w]]) ->  /* an error; then it registers again */
          unlock(w + 1);
          alive[id[w]] = (alive[id[w]] == w + 1 -> 0 : alive[id[w]]);
          id[w] = 0; connected[w] = false
        };
        goto end
     fi;
     if
     :: d_step { start(w + 1, id[w], c) };
        if
        :: d_step { know(0);
#if JOBS == 2
             know(1);
#endif
             c = 0 }
        :: c = 0  /* the answer is lost */
        fi
     :: d_step { under_way == 0 ->  /* it has given up before the commit */
          under_way = c; under_way_id = id[w]; c = 0;
#ifndef NO_ROW_LOCK
          shared[id[w]] = shared[id[w]] & ~(w + 1) | UNDER_WAY;
#endif
          job[0].locked = (job[0].locked == w + 1 -> UNDER_WAY : job[0].locked);
          job[JOBS - 1].locked = (job[JOBS - 1].locked == w + 1 -> UNDER_WAY : job[JOBS - 1].locked)
        }
     fi
  /* release_unknown_jobs.sql: there are claims in its name that it does not know */
#ifndef NO_COMPARISON
  :: d_step { id[w] && NOTICED && (UNKNOWN(1) || UNKNOWN(2) || UNKNOWN(CLAIMS)) ->
       give_back_unknown(0);
#if JOBS == 2
       give_back_unknown(1);
#endif
       forget(1, UNKNOWN(1)); forget(2, UNKNOWN(2)); forget(CLAIMS, UNKNOWN(CLAIMS))
     }
#endif
  :: d_step { HELD(0).claim && !GOES_ON(0, HELD(0)) -> clear(HELD(0)); dropped[w] = dropped[w] + COUNT }
  :: HELD(0).claim -> settle_one(0)
#if JOBS == 2
  :: HELD(1).claim -> settle_one(1)
#endif
  od
}

inline lock_left(j) {
  job[j].locked = (job[j].status == RUNNING && job[j].locked == 0 && claim_of[job[j].claim] == n -> RESCUE : job[j].locked)
}

inline give_back(j) {
  if
  :: job[j].locked == RESCUE -> job[j].status = PENDING; job[j].claim = 0; job[j].locked = 0
  :: else
  fi
}

/* rescue_jobs.sql, when the grace has passed */
proctype Rescue() {
  byte n;

end:
  do
  :: if
     :: atomic { LEFT(1) -> n = 1 }
     :: atomic { LEFT(2) -> n = 2 }
     :: atomic { LEFT(3) -> n = 3 }
     fi;
#ifndef NO_KEY
     if
     :: d_step { alive[n] == 0 -> alive[n] = RESCUE }
     :: alive[n] != 0 -> goto end
     fi;
#endif
     if  /* private/give_away_worker.sql: for update skip locked */
     :: d_step { registered[n] && !shared[n] -> updated[n] = true }
     :: d_step { registered[n] && shared[n] -> alive[n] = (alive[n] == RESCUE -> 0 : alive[n]) }; goto end
     :: !registered[n]
     fi;
     d_step { lock_left(0);
#if JOBS == 2
       lock_left(1)
#endif
     };
     d_step {
       assert(alive[n] == 0 || alive[n] == RESCUE);  /* nothing is taken from a worker that holds its key */
       give_back(0);
#if JOBS == 2
       give_back(1);
#endif
       forget(1, claim_of[1] == n); forget(2, claim_of[2] == n); forget(CLAIMS, claim_of[CLAIMS] == n);
       registered[n] = false; updated[n] = false; alive[n] = 0
     }
  od
}

/* What comes from elsewhere: late calls, an enqueue under the same id, lost connections, a death. */
proctype Late(byte j) {
end:
  do
  :: d_step { under_way -> start(UNDER_WAY, under_way_id, under_way); under_way = 0; under_way_id = 0 }
  :: d_step { late[j].claim && job[j].locked == 0 -> settle(j, late[j]); clear(late[j]) }
  :: d_step { job[j].status == DELETED && !job[j].again ->
       job[j].status = PENDING; job[j].again = true; job[j].attempts = 0; job[j].claim = 0; job[j].worker = 0
     }
  od
}

proctype Cut(byte w) {
  if
  :: d_step { connected[w] -> connected[w] = false; alive[id[w]] = 0 }
  :: true
  fi
}

proctype Die() {
  byte n;

  d_step {
    dead[0] = true; n = id[0];
    alive[n] = (alive[n] == 1 -> 0 : alive[n]);
    shared[n] = shared[n] & ~1;
    unlock(1)
  }
}

init {
  atomic {
    job[0].status = PENDING; job[JOBS - 1].status = PENDING;
    run Worker(0); run Worker(1); run Rescue(); run Late(0);
#if JOBS == 2
    run Late(1);
#endif
#if CUTS > 0
    run Cut(0);
#endif
#if CUTS > 1
    run Cut(1);
#endif
#if DIES
    run Die()
#endif
  }
  timeout;  /* everything is at rest, and every worker without its key was given away */
  assert(job[0].status != RUNNING && job[JOBS - 1].status != RUNNING);  /* each start has ended */
  assert(!job[0].locked && !job[JOBS - 1].locked)
}
