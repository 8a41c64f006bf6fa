mod first_stage;
mod second_stage;
