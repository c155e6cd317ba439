"""The few operations that training spends its time and memory in, each equal to what it stands in for."""
