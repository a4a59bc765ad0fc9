"""Transport through a segment of memory that ranks on one host share, and the synchronisation within it.

**Memory order.** Ordinary loads and stores of Python (through `mmap` and numpy) carry no order of their own: on
ARM a flag may be seen before the data it announces. So no rank reads data because of a flag. Ranks synchronise by POSIX
semaphores in the segment: the writer writes, then calls ``sem_post``; the reader takes the post by ``sem_trywait`` or a
timed wait, then reads. POSIX lists these functions among those that synchronise memory (IEEE Std 1003.1-2017, 4.12),
C libraries implement them as release and acquire, and the call across the C boundary keeps compiler and interpreter
from moving accesses past it. Every post is for one reader and one event, and is taken exactly once, so the reader that
took it sees all that was written before it. No process owns a semaphore: a killed rank leaves no lock behind, only
missing posts.

x86-64 keeps the order of a processor's stores, and of its loads (total store order). There `TsoRounds` polls aligned
words instead of semaphores; `rounds_tso.make_rounds` chooses by the machine. Messages use semaphores on every machine.
"""
