"""The commands of a run (trainers, samplers, graders): placed, watched, started again. No torch."""
