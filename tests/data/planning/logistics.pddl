;; Logistics without types: trucks drive within cities, airplanes fly between airports.
;; In (in ?obj ?obj) the parameters have one name, as they do in the competition's own file.
(define (domain logistics-strips)
  (:requirements :strips)
  (:predicates (OBJ ?obj) (TRUCK ?truck) (LOCATION ?loc) (AIRPLANE ?airplane) (CITY ?city)
    (AIRPORT ?airport) (at ?obj ?loc) (in ?obj ?obj) (in-city ?obj ?city))
  (:action LOAD-TRUCK
    :parameters (?obj ?truck ?loc)
    :precondition (and (OBJ ?obj) (TRUCK ?truck) (LOCATION ?loc) (at ?truck ?loc) (at ?obj ?loc))
    :effect (and (not (at ?obj ?loc)) (in ?obj ?truck)))
  (:action LOAD-AIRPLANE
    :parameters (?obj ?airplane ?loc)
    :precondition (and (OBJ ?obj) (AIRPLANE ?airplane) (LOCATION ?loc) (at ?obj ?loc)
      (at ?airplane ?loc))
    :effect (and (not (at ?obj ?loc)) (in ?obj ?airplane)))
  (:action UNLOAD-TRUCK
    :parameters (?obj ?truck ?loc)
    :precondition (and (OBJ ?obj) (TRUCK ?truck) (LOCATION ?loc) (at ?truck ?loc) (in ?obj ?truck))
    :effect (and (not (in ?obj ?truck)) (at ?obj ?loc)))
  (:action UNLOAD-AIRPLANE
    :parameters (?obj ?airplane ?loc)
    :precondition (and (OBJ ?obj) (AIRPLANE ?airplane) (LOCATION ?loc) (in ?obj ?airplane)
      (at ?airplane ?loc))
    :effect (and (not (in ?obj ?airplane)) (at ?obj ?loc)))
  (:action DRIVE-TRUCK
    :parameters (?truck ?from ?to ?city)
    :precondition (and (TRUCK ?truck) (LOCATION ?from) (LOCATION ?to) (CITY ?city)
      (at ?truck ?from) (in-city ?from ?city) (in-city ?to ?city))
    :effect (and (not (at ?truck ?from)) (at ?truck ?to)))
  (:action FLY-AIRPLANE
    :parameters (?airplane ?from ?to)
    :precondition (and (AIRPLANE ?airplane) (AIRPORT ?from) (AIRPORT ?to) (at ?airplane ?from))
    :effect (and (not (at ?airplane ?from)) (at ?airplane ?to))))
