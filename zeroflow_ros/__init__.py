"""ZeroFlow in ROS 2: messages in, one call of zeroflow_core, messages out."""
