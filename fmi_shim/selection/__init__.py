"""What an operation takes and costs on each channel: FMI's published model, and a corrected one."""
