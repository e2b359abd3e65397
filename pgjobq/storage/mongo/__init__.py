"""What MongoStorage is made of; the only folder that imports pymongo besides it."""
