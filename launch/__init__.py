"""Starting many processes: on one machine, on Cloud TPU VMs."""
