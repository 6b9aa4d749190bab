"""Files of rows: read and checked, answered under a journal that can be resumed, and written with what they had."""
