"""The parts of MongoStorage. Only they and MongoStorage import pymongo."""
