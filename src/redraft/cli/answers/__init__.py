"""Commands that answer prompts: generate, chat, and the live canvas they show."""
