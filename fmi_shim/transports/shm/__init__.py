"""A segment of memory that ranks on one host share, and the synchronisation within it.

**Memory order.** Ordinary loads and stores of Python (through `mmap` and numpy) carry no order of their own: on
ARM a flag may be seen before the data it announces. So nothing is read there because of a flag: what one rank tells
another is told by a POSIX semaphore that lies in the segment: the teller writes, then ``sem_post``; the told
takes the post by ``sem_trywait`` or a timed wait, then reads. POSIX lists these functions among those that
synchronise memory (IEEE Std 1003.1-2017, 4.12), C libraries implement them as release and acquire, and the
call across the C boundary keeps compiler and interpreter from moving accesses past it. Every post is for
one reader and one event, and is taken exactly once, so that whoever took it sees all that was written before it.
A semaphore is owned by nobody: a rank that is killed leaves no lock behind, only posts that do not come.

x86-64 keeps the order of a processor's stores, and of its loads, for all to see. There `OrderedRounds` polls aligned
words in the place of semaphores; `ordered_rounds.rounds` chooses by the machine. Messages take semaphores everywhere.
"""
