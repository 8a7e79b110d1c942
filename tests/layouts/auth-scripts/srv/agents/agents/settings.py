import os

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

SECRET_KEY = "of the agents"
ALLOWED_HOSTS = ["agents.example"]
ROOT_URLCONF = "agents.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(HERE, "db", "agents.sqlite3"),
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
LOGGING_CONFIG = None
