"""Django's command line for this project: `python manage.py migrate` and the like."""

import sys

from config.environment import load

if __name__ == "__main__":
    load()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
