"""Settings of the example. The database comes from libpq's variables: PGHOST, PGPORT, PGUSER, PGDATABASE."""

import os

import django

SECRET_KEY = "only for the example"  # noqa: S105  # it signs nothing of value
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
TIME_ZONE = "UTC"
TASKS_APPS = [] if django.VERSION >= (6, 0) else ["django_tasks"]  # the Tasks API, which Django 6.0 has itself
INSTALLED_APPS = [
    *TASKS_APPS,
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "pgjobq.django",
    "shop.apps.ShopConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "shop"),
        "ATOMIC_REQUESTS": True,
        "CONN_MAX_AGE": 60,
    }
}
PGJOBQ = {"SCHEMA": "pgjobq"}
TASKS = {"default": {"BACKEND": "pgjobq.django.tasks.PgjobqBackend", "QUEUES": ["default", "mail"]}}
