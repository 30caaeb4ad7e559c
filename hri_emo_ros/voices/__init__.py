"""Who speaks, and how that voice usually sounds. Neither ROS nor torch below here."""
