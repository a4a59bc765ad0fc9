"""AWS's quotas for Lambda and Step Functions, from the quota pages of their documentation as of 2026."""

MIB = 1024 * 1024

# The synchronous limit is 6 MB; the service allows for its own envelope on top.
SYNC_PAYLOAD_BYTES = 6 * MIB + 100
RESPONSE_BYTES = 6 * MIB + 100
ASYNC_PAYLOAD_BYTES = MIB

TIMEOUT_S = range(1, 901)
DEFAULT_TIMEOUT_S = 3
MEMORY_MB = range(128, 10_241)
DEFAULT_MEMORY_MB = 128
EPHEMERAL_STORAGE_MB = range(512, 10_241)
DEFAULT_EPHEMERAL_STORAGE_MB = 512
CONCURRENT_EXECUTIONS = 1000
# Reservations must leave this many for functions without a reservation.
UNRESERVED_EXECUTIONS = 100
MB_PER_VCPU = 1769
# Per execution environment.
FILE_DESCRIPTORS = 1024
PROCESSES = 1024
MAX_VCPUS = 6

# Delays before the retries of an event whose function failed.
ASYNC_RETRY_DELAYS_S = (60.0, 120.0)

# How long an event waits for its function at most.
EVENT_AGE_S = 6 * 3600

# Limit of the init phase.
INIT_S = 10.0

# A function's variables, as JSON.
ENVIRONMENT_BYTES = 4096

# A change of a function that follows an update without a look at it fails for so long, seconds. On AWS an update takes
# one to several seconds.
UPDATE_S = 1.0

ZIPPED_CODE_BYTES = 50 * MIB
UNZIPPED_CODE_BYTES = 250 * MIB
# Of all functions together.
ACCOUNT_CODE_BYTES = 75 * 1024 * MIB

# LogType=Tail returns the last 4 KB of the log.
LOG_TAIL_BYTES = 4096
# A CloudWatch Logs event: 256 KB less 26 bytes of overhead.
LOG_EVENT_BYTES = 256 * 1024 - 26

# Step Functions: input and output of a state, size of a definition, length of a history.
STATE_DATA_BYTES = 256 * 1024
DEFINITION_BYTES = MIB
HISTORY_EVENTS = 25_000
EXPRESS_TIMEOUT_S = 300
# AWS keeps ended executions for 90 days; this many fit into memory.
EXECUTIONS_KEPT = 1000
# Iterations of an inline Map that AWS runs at once, and child executions of a distributed one.
INLINE_MAP_CONCURRENCY = 40
DISTRIBUTED_MAP_CONCURRENCY = 10_000
# Iterations of an inline Map that the emulator runs at once: as many as Lambda runs functions.
INLINE_MAP_TASKS = CONCURRENT_EXECUTIONS

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"


def vcpus(memory_mb: int) -> int:
    """Return the number of vCPUs of a memory size: one per 1769 MB, from 1 to 6.

    Parameters
    ----------
    memory_mb
        The function's memory, MB.
    """
    return min(MAX_VCPUS, max(1, memory_mb // MB_PER_VCPU))
