/* Can a floor hide a place in line that can be seen, or that will be?
 *
 * Two transactions at a time change a job and then give it a place, which draws a number from a sequence; a third takes
 * places, as a claim does.  Each may roll back.  advance_floors.sql runs again and again.  A claim does not
 * look below the floor.
 *
 *   -DSESSIONS=2  two sessions run advance_floors
 *   -DPLACES=2    two places, not three
 *
 * Every other -D takes a step of the protocol away, see tests/model/test_protocol_models.py.
 */
#ifndef SESSIONS
#define SESSIONS 1
#endif
#ifndef PLACES
#define PLACES 3  /* at most */
#endif

mtype:state = { NONE, DRAWN, VISIBLE, TAKEN, GONE };  /* TAKEN: by a transaction that is open */

mtype:state place[4] = NONE;
byte last;         /* place_seq: the number that was drawn last */
byte opened;       /* transactions that have an id, and the lock on ready: a bit each */
byte wait_for[2];  /* for each session that moves floors: the open transactions that it noted, less those that ended */
byte floor = 1;    /* of the lane: a claim begins there */

#define EXISTS(n) (place[n] == DRAWN || place[n] == VISIBLE || place[n] == TAKEN)

inline check() {
  assert(!(floor > 1 && EXISTS(1)) && !(floor > 2 && EXISTS(2)) && !(floor > 3 && EXISTS(3)))  /* no hidden place */
}

inline ends(transaction) {
  opened = opened & ~transaction;
  wait_for[0] = wait_for[0] & ~transaction; wait_for[1] = wait_for[1] & ~transaction
}

/* private/place_new_jobs.sql, private/place_changed_job.sql, promote_jobs.sql */
proctype Place(byte own) {
  byte mine;

end:
  do
  :: last < PLACES ->
#ifndef ID_AFTER_NUMBER
     opened = opened | own;       /* first the job is changed, which gives the transaction an id */
#endif
     if
     :: d_step { last < PLACES -> last++; mine = last; place[mine] = DRAWN; check() }
     :: d_step { last == PLACES -> ends(own) }; goto end
     fi;
#ifdef ID_AFTER_NUMBER
     opened = opened | own;
#endif
     if
     :: d_step { place[mine] = VISIBLE; ends(own); mine = 0; check() }  /* commit */
     :: d_step { place[mine] = GONE; ends(own); mine = 0 }              /* rollback: the number does not come back */
     fi
  od
}

inline take(n) {
  place[n] == VISIBLE && n >= floor -> place[n] = TAKEN; mine = n; opened = opened | 4
}

/* private/take_places.sql, in the transaction of claim_jobs.sql */
proctype Claim() {
  byte mine;

end:
  do
  :: if
     :: d_step { take(1) }
     :: d_step { take(2) }
     :: d_step { take(3) }
     fi;
     if
     :: d_step { place[mine] = GONE; ends(4); mine = 0 }
     :: d_step { place[mine] = VISIBLE; ends(4); mine = 0; check() }
     fi
  od
}

/* advance_floors.sql; safe and wait_for go from one call to the next */
proctype Advance(byte me) {
  byte safe, given, next, lowest;

end:
  do
#ifdef OPEN_BEFORE_SAFE
  :: wait_for[me] == 0 -> given = safe; wait_for[me] = opened; safe = last + 1;
#else
  :: next = last + 1;          /* v_next */
#ifndef NO_WAIT
     if
     :: wait_for[me] == 0      /* all of open have ended */
     :: d_step { wait_for[me] != 0 -> next = 0 }; goto end
     fi;
#endif
     d_step { given = safe; safe = next; next = 0; wait_for[me] = opened }  /* open_transactions('ready') */
#endif
     if
     :: given == 0 -> goto end
     :: else
     fi;
     d_step {                  /* the lowest place that is visible to this statement */
       lowest = floor;
       do
#ifdef IGNORE_LOWEST
       :: lowest < given -> lowest++
#else
#ifdef TAKEN_IS_GONE
       :: lowest < given && place[lowest] != VISIBLE -> lowest++
#else
       :: lowest < given && place[lowest] != VISIBLE && place[lowest] != TAKEN -> lowest++
#endif
#endif
       :: else -> break
       od
     }
     d_step {                  /* the commit: of two floors of a lane the higher one counts */
       floor = (lowest > floor -> lowest : floor);
       given = 0; lowest = 0; check()
     }
  od
}

init {
  atomic { run Place(1); run Place(2); run Claim(); run Advance(0);
#if SESSIONS == 2
    run Advance(1)
#endif
  }
}
