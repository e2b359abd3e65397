/* Does a worker miss a job that was enqueued while it fell asleep?
 *
 * Transactions enqueue one job each; two workers claim, poll and sleep.  Each step is one moment of the real protocol:
 * a look at a key, a change of keys, a commit.  docs/discussions/model.md says what is left out.
 *
 *   -DSECOND=1    a second enqueuer, in repeatable read; without it a job that waits at the start takes its place
 *   -DBUSY=1      workers tell that they are busy
 *   -DROOM0=2     the first worker can run two jobs at a time
 *   -DROUNDS=1    each worker runs a round of maintenance, at any time (watch_workers.sql)
 *   -DFAILS=1     a worker dies or freezes, at any step; then maintenance must find what is left
 *
 * Every other -D takes a step of the protocol away, see tests/model/test_protocol_models.py.
 */
#ifndef SECOND
#define SECOND 0
#endif
#ifndef BUSY
#define BUSY 0
#endif
#ifndef ROOM0
#define ROOM0 1
#endif
#ifndef FAILS
#define FAILS 0
#endif
#ifndef ROUNDS
#define ROUNDS 0
#endif
#define OTHER (1 - w)

mtype:state = { AWAKE, ASLEEP, POLLING };

/* The keys of each worker: session locks, which fall with it (private/lock_class.sql). */
bool anyone[2], asleep[2], polling[2], busy[2], everything[2];
/* The committed rows of doorbell. */
bool row[2], passed_over[2];
/* The jobs, and the transactions that enqueue them: a bit each. */
byte opened, visible, started;
/* What a worker was sent and has not read: that there is a job, a call to fall asleep again (!), one to watch (?). */
bool bell[2], call[2], watch[2];
bool gone[2], telling[2], has_room[2] = true;
bool tick[2], second[2];  /* it is time for maintenance; a second has passed */
bool rely[2];  /* SleepPolicy._pollers: it knows that the other polls */

/* private/place_new_jobs.sql and private/notify_workers.sql.  old: its snapshot is as old as the transaction. */
proctype Enqueuer(byte job; bool old) {
  bool seen[2], polls[2], found[2], ring[2];

  if
  :: d_step { old -> seen[0] = row[0]; seen[1] = row[1] }
  :: !old
  fi;
  opened = opened | job;  /* the insert: first the lock on jobs, then an id, then the trigger */
  if
  :: !anyone[0] && !anyone[1] -> goto commit  /* no worker sleeps or polls */
  :: else
  fi;
  if
  :: everything[0] || everything[1] -> goto commit  /* one that serves every queue polls */
  :: else
  fi;
  if
  :: d_step { !old -> seen[0] = row[0]; seen[1] = row[1] }
#ifdef OLD_SNAPSHOT
  :: old
#else
  :: d_step { old -> ring[0] = true; ring[1] = true }; goto commit  /* it cannot see which workers have registered */
#endif
  fi;
  if
  :: seen[0] && polling[0] && !busy[0] || seen[1] && polling[1] && !busy[1] -> goto commit  /* they see it */
  :: else
  fi;
  /* notify_workers looks at the keys one by one; a poller that is busy counts only for a sleeper that is busy, too */
  d_step { polls[0] = seen[0] && polling[0]; found[1] = !(polls[0] && (!busy[0] || busy[1])) }
  d_step { polls[1] = seen[1] && polling[1]; found[0] = !(polls[1] && (!busy[1] || busy[0])) }
  d_step { found[0] = found[0] && seen[0] && !polls[0] && asleep[0]; seen[0] = false; polls[0] = false }
  d_step { found[1] = found[1] && seen[1] && !polls[1] && asleep[1]; seen[1] = false; polls[1] = false }
  if  /* it notifies one; either may have its turn, unless it was passed over */
  :: found[0] && (!found[1] || passed_over[0] <= passed_over[1]) -> ring[0] = true
  :: found[1] && (!found[0] || passed_over[1] <= passed_over[0]) -> ring[1] = true
  :: !found[0] && !found[1]
  fi;
commit:
  atomic {
    opened = opened & ~job; seen[0] = false; seen[1] = false;
    if  /* a commit makes the job visible, then come the notifications; a rollback leaves nothing */
    :: visible = visible | job;
       bell[0] = bell[0] || ring[0]; bell[1] = bell[1] || ring[1];
#if (FAILS || ROUNDS) && !defined(NO_WATCH)
       watch[0] = watch[0] || !ring[0] && found[0]; watch[1] = watch[1] || !ring[1] && found[1];
#endif
    :: skip
    fi;
    ring[0] = false; ring[1] = false; found[0] = false; found[1] = false
  }
}

/* set_worker_state.sql, and SleepPolicy.told. */
inline tell(to, now_busy) {
  d_step {  /* enter_doorbell, a look at the keys of the other, and hold_keys: new keys first */
    telling[w] = FAILS;
    is_new = to != AWAKE && (!row[w] || passed_over[w]);
    rely[w] = (FAILS || ROUNDS) && row[OTHER] && polling[OTHER];
    on_watch = to == POLLING && !now_busy && !(row[OTHER] && polling[OTHER] && !busy[OTHER]);
    was_polling = polling[w];
#ifdef V_BEFORE_KEYS
    v = (to == ASLEEP && (st != ASLEEP || again) -> opened : v);
#endif
    anyone[w] = anyone[w] || to != AWAKE;
    asleep[w] = asleep[w] || to == ASLEEP;
    polling[w] = polling[w] || to == POLLING;
    busy[w] = busy[w] || now_busy
  }
  d_step {  /* hold_keys: then it lets go of the others */
    anyone[w] = to != AWAKE; asleep[w] = to == ASLEEP; polling[w] = to == POLLING; busy[w] = now_busy;
    everything[w] = on_watch && !everything[OTHER];
    on_watch = false
  }
  d_step {  /* it calls those that sleep, and notes V, the open transactions; then comes the commit */
#ifndef NO_CALL
    called = was_polling && to == AWAKE && row[OTHER] && asleep[OTHER];
#endif
#if !defined(NO_V) && !defined(V_BEFORE_KEYS)
    v = (to == ASLEEP && (st != ASLEEP || again) -> opened : v)
#endif
  }
  d_step {
    call[OTHER] = call[OTHER] || called; called = false;
    row[w] = row[w] || to != AWAKE;
    passed_over[w] = passed_over[w] && to == AWAKE;
    if
    :: to == ASLEEP && (st != ASLEEP || again) ->
#ifdef NEW_ROW
       again = false;
#else
       again = is_new;
#endif
#ifndef NO_CLAIM_AFTER_TELL
       look = !again
#endif
    :: to != ASLEEP && st != to -> v = 0; again = true; look = true
    :: else
    fi;
    st = to; is_new = false; was_polling = false; telling[w] = false
  }
}

/* call_workers.sql: with 'help' another that sleeps hears ! and with 'watch' it hears ? */
inline ask(mailbox) {
  mailbox = mailbox || row[OTHER] && !polling[OTHER] && asleep[OTHER]
}

inline take(job) {
  if
  :: (visible & job) && room > 0 ->
     assert(!(started & job));  /* nothing is started twice */
     visible = visible & ~job; started = started | job; room--; brought++
  :: else
  fi
}

/* worker/fetcher.py, with postgres/sleep.py: SleepPolicy.next says which of these comes. */
proctype Worker(byte w; byte room)
#if FAILS
  provided (!gone[w])
#endif
{
  mtype:state st = AWAKE;
  bool look = true;        /* claim before anything else */
  bool again = true;       /* fall asleep by all the steps */
  byte v, ending, brought; /* transactions to wait for; jobs in hand that will end; jobs of the last claim */
  bool told_full, notified, is_new, on_watch, was_polling, called;

end:
  do
  :: d_step { ending > 0 -> ending--; room++; has_room[w] = true }
  :: d_step { room == 0 && !told_full -> told_full = true; look = true };  /* SleepPolicy.loaded */
     if
     :: st == POLLING -> tell(AWAKE, false); goto end
     :: st == ASLEEP -> tell(AWAKE, false)
     :: st == AWAKE
     fi;
#ifndef NO_HELP
     ask(call[OTHER])
#endif
  :: d_step { room > 0 && look ->  /* claim_jobs.sql: one moment, which is its commit */
       brought = 0; told_full = false;
       take(1); take(2);
#if FAILS
       take(4);
#endif
      
       look = room == 0; has_room[w] = room > 0
     };
     if
     :: brought == 0 && !notified -> goto end
     :: brought == 0 && notified
     :: d_step { brought > 0 -> ending = ending + brought }
     :: brought > 0  /* these run for ever */
     fi;
     if  /* it turns to polling when the claim was large, or when notifications are frequent */
     :: st != POLLING -> tell(POLLING, busy[w])
     :: skip
     fi;
#if FAILS || ROUNDS
     if
     :: brought > 0 && !notified -> ask(watch[OTHER])
     :: else
     fi;
#endif
     d_step { brought = 0; notified = false }
  :: BUSY && room > 0 && !look && st != AWAKE && !busy[w] && ending > 0 -> tell(st, true)
  :: BUSY && room > 0 && !look && st != AWAKE && busy[w] && ending == 0 -> tell(st, false)
  :: room > 0 && !look && st == POLLING -> look = true
  :: room > 0 && !look && st == POLLING -> tell(ASLEEP, busy[w])  /* it has found nothing for a while */
  :: room > 0 && !look && st != POLLING && again -> tell(ASLEEP, busy[w])
  :: d_step { room > 0 && !look && st == ASLEEP && !again && (v & ~opened) ->  /* some of the open ones have ended */
       v = v & opened;
#ifndef NO_CLAIM_AFTER_V
       look = true
#endif
     }
  :: d_step { room > 0 && !look && (st == POLLING || !again) && (bell[w] || call[w]) ->  /* heard, called */
       look = bell[w]; notified = bell[w]; again = again || call[w];
       bell[w] = false; call[w] = false
     }
  :: d_step { tick[w] ->  /* watch_workers.sql, SleepPolicy.watched */
       tick[w] = false;
       again = again || rely[w] && !(row[OTHER] && polling[OTHER]);
       rely[w] = row[OTHER] && polling[OTHER];
#ifndef NO_WAITING
       look = look || visible;  /* jobs wait */
#endif
       passed_over[OTHER] = passed_over[OTHER] || visible && watch[w] && asleep[OTHER];
       passed_over[w] = false; watch[w] = false
     }
  :: d_step { second[w] -> second[w] = false; look = look || rely[w] }  /* RELY_ON_POLLER */
  od
}

init {
  atomic {
    run Enqueuer(1, false);
#if SECOND
    run Enqueuer(2, true);
#else
    visible = 2;
#endif
#if ROUNDS
    tick[0] = true; tick[1] = true;
#endif
    run Worker(0, ROOM0);
    run Worker(1, 1)
  }
#if FAILS
  atomic {
    gone[0] = true;
    if
    :: anyone[0] = false; asleep[0] = false; polling[0] = false; busy[0] = false; everything[0] = false  /* it dies */
    :: !telling[0]  /* it freezes, and keeps its keys; but the server ends the statement that it runs */
    fi
  }
  timeout;  /* the next round of maintenance, within five seconds */
#ifdef TOLD_ONLY
  tick[1] = watch[1]; second[1] = true;
#else
  tick[1] = true;
#endif
  timeout;
  assert(!visible || !has_room[1]);  /* found by one round */
  run Enqueuer(4, false);
  timeout;  /* from now on the other knows what to watch, and looks once a second */
  tick[1] = watch[1];
#ifndef NO_RELY
  second[1] = true;
#endif
#endif
  timeout;  /* everything is at rest */
  assert(!visible || !(has_room[0] && !gone[0]) && !has_room[1])  /* no lost wake-up */
}
